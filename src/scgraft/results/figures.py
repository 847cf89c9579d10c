"""Interactive figures of a mapping (plotly), from plain arrays; every name is escaped, as it comes from strangers' files."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from scgraft.values.colours import COLOURS, DARK, GREY, RED, SILENT, in_order, palette, shapes
from scgraft.values.hierarchy import UNKNOWN

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DRAWN = 300_000  # points that a browser still pans smoothly; above, the reference is a picture; chosen by eye
BINS = 400  # pixels of that picture along each axis; chosen by eye
SHOWN, SHOWN_OF_EACH = (
    5_000,
    20,
)  # cells of the query that stand on it as points, and of each label at least; chosen by eye
LISTED = 60  # characters of a name; chosen by eye
# Of bars, where the colours repeat: as the shapes of points.
PATTERNS = ("", "/", "x", "-", "+")


def plain(text: object, most: int = LISTED) -> str:
    """Text that plotly shows as it is: escaped, cut where it is very long, without what would turn or break the line."""
    words = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    # Plotly reads tags and three entities; a quote's entity would be shown as written.
    return escape(words if len(words) <= most else words[: most - 1] + "…", quote=False)


def _layout(figure: Figure, height: int) -> Figure:
    figure.update_layout(
        height=height,
        margin={"l": 50, "r": 20, "t": 30, "b": 45},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": DARK},
        hoverlabel={"align": "left"},
    )
    return figure


def _mark_tray(figure: Figure, reference: np.ndarray, cells: np.ndarray) -> None:
    low, high = reference.min(axis=0), reference.max(axis=0)
    width = high[0] - low[0]
    left = high[0] + 0.04 * width
    right = max(float(cells[:, 0].max()), left + 0.2 * width) + 0.02 * width
    line = {"color": RED, "width": 1, "dash": "dot"}
    figure.add_shape(type="rect", x0=left, x1=right, y0=low[1], y1=high[1], line=line, layer="below")
    figure.add_annotation(
        x=(left + right) / 2, y=high[1], yshift=12, text="not explained by the reference", showarrow=False,
        font={"color": RED, "size": 12},
    )  # fmt: skip


def density_figure(
    reference: np.ndarray,
    query: np.ndarray,
    tray: np.ndarray,
    label: np.ndarray | None = None,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """The map of very many cells: two images on one grid: where the reference is, and where the query is (log of cells a pixel).

    With a `label` of each query cell (n,), some of them (seeded, of every label at least 20) stand on it as points, so that types can
    be told apart and names be read.
    """
    import plotly.graph_objects as go

    both = np.concatenate([reference, query])
    limits = [(both[:, i].min(), both[:, i].max() + 1e-6) for i in (0, 1)]
    figure = go.Figure()
    for points, scale, name in ((reference, "Greys", "reference"), (query, "Viridis", "query")):
        image, x, y = np.histogram2d(points[:, 0], points[:, 1], bins=BINS, range=limits)
        shown = np.where(image > 0, np.log10(image + 1), np.nan).T.astype(np.float32)
        figure.add_trace(go.Heatmap(z=shown, x=x, y=y, colorscale=scale, showscale=False, hoverinfo="skip", name=name))
    if label is not None:
        colours = palette(in_order(label)) if colours is None else colours
        for name, members in _some_of_each(label.astype(str)).items():
            x, y = query[members].round(3).T
            marker = {"color": colours[name], "size": 4, "line": {"color": "white", "width": 0.5}}
            figure.add_trace(
                go.Scatter(x=x, y=y, mode="markers", marker=marker, name=plain(name, 40), hoverinfo="name")
            )
    if tray.any():
        _mark_tray(figure, reference, query[tray])
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return _layout(figure, 620)


def _some_of_each(label: np.ndarray) -> dict[str, np.ndarray]:
    """Positions of some cells of every label: 5,000 in all, by its share, but 20 of each where there are as many (seeded)."""
    order, found = np.random.default_rng(0).permutation(len(label)), {}
    for name in in_order(label):
        own = order[label[order] == name]
        found[name] = np.sort(own[: max(round(SHOWN * len(own) / len(label)), SHOWN_OF_EACH)])
    return found


def flow_figure(left: np.ndarray, right: np.ndarray, colours: Mapping[str, str] | None = None) -> Figure:
    """Flow from query clusters to labels."""
    import plotly.graph_objects as go

    sources, targets = in_order(left), in_order(right)
    colours = palette(targets) if colours is None else colours
    pairs, number = np.unique(np.stack([left.astype(str), right.astype(str)]), axis=1, return_counts=True)
    names = [f"cluster {s}" for s in sources] + targets
    link = {
        "source": [sources.index(s) for s in pairs[0]],
        "target": [len(sources) + targets.index(t) for t in pairs[1]],
        "value": number.tolist(),
        "color": [_faint(colours[t]) for t in pairs[1]],
    }
    shown = [SILENT] * len(sources) + [colours[t] for t in targets]
    node = {"label": [plain(n, 40) for n in names], "color": shown, "pad": 16}
    figure = go.Figure(go.Sankey(node=node, link=link, valueformat=",d", valuesuffix=" cells"))
    return _layout(figure, max(380, 32 * max(len(sources), len(targets))))


def _faint(colour: str) -> str:
    """A colour ``#rrggbb`` at a third of its strength, in a form that every version of plotly takes for a link."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.33)"


def composition_figure(batch: np.ndarray, label: np.ndarray, colours: Mapping[str, str] | None = None) -> Figure:
    """Share of each label in each batch."""
    import plotly.graph_objects as go

    batches, labels = in_order(batch), in_order(label)
    colours, repeats = palette(labels) if colours is None else colours, shapes(labels if colours is None else colours)
    figure = go.Figure()
    for name in labels:
        share = [float((label[batch == b].astype(str) == name).mean()) for b in batches]
        # Cut names can coincide, so the bars stand at numbers.
        bar = {"y": list(range(len(batches))), "x": share, "orientation": "h", "marker_color": colours[name]}
        bar |= {"marker_pattern_shape": PATTERNS[repeats[name]]} if repeats.get(name) else {}
        figure.add_trace(go.Bar(name=plain(name, 40), hovertemplate="%{x:.1%} %{fullData.name}<extra></extra>", **bar))
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(tickformat=".0%", title="share of the batch's cells")
    shown = [f"{plain(b, 40)} ({(batch == b).sum():,})" for b in batches]
    figure.update_yaxes(automargin=True, autorange="reversed", tickvals=list(range(len(batches))), ticktext=shown)
    return _layout(figure, max(200, 100 + 34 * len(batches), 100 + 24 * len(labels)))


def histogram_figure(
    values: np.ndarray,
    title: str,
    unknown: np.ndarray,
    *,
    threshold: float | None = None,
    said: str = "",
    low: float | None = None,
) -> Figure:
    """Histogram from `low`, cells that are marked unknown in grey, with a threshold where there is one."""
    import plotly.graph_objects as go

    finite = np.isfinite(values)
    values, unknown = values[finite], unknown[finite]
    high = float(np.quantile(values, 0.995)) if len(values) else 1.0
    high = high if threshold is None or not np.isfinite(threshold) else max(high, 1.05 * threshold)
    edges = np.histogram_bin_edges(np.minimum(values, high), 50, None if low is None else (low, max(high, low + 1e-6)))
    figure = go.Figure()
    for name, own, colour in (("labelled", ~unknown, COLOURS[0]), (UNKNOWN, unknown, SILENT)):
        number, _ = np.histogram(np.minimum(values[own], high), bins=edges)
        middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
        figure.add_trace(go.Bar(x=middle, y=number, width=width, marker_color=colour, marker_line_width=0, name=name))
    if threshold is not None and np.isfinite(threshold):
        line = {"color": RED, "dash": "dot"}
        figure.add_vline(x=threshold, line=line, annotation_text=plain(said), annotation_font_color=RED)
    figure.update_layout(barmode="stack", legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.16})
    figure.update_xaxes(title=plain(title))
    figure.update_yaxes(title="cells", rangemode="tozero")
    return _layout(figure, 320)


def reliability_figure(table: np.ndarray) -> Figure:
    """Share right against probability on held-out reference cells, with the diagonal; larger points are more cells."""
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY}, showlegend=False))
    text = [f"{int(n):,} cells, {right:.1%} right at {p:.2f}" for p, right, n in table]
    size = 5 + 13 * np.sqrt(table[:, 2] / max(float(table[:, 2].max(initial=1)), 1.0))
    marker = {"color": COLOURS[0], "size": size, "line": {"width": 0}}
    figure.add_trace(
        go.Scatter(
            x=table[:, 0],
            y=table[:, 1],
            mode="lines+markers",
            text=text,
            hoverinfo="text",
            marker=marker,
            line={"color": COLOURS[0], "width": 1},
            showlegend=False,
        )
    )
    figure.update_xaxes(title="probability, held-out reference cells", range=[0, 1.04])
    figure.update_yaxes(title="share right", range=[0, 1.08])
    return _layout(figure, 320)

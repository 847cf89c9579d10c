"""Interactive figures of a mapping (plotly), from plain arrays; every name is escaped, as it comes from strangers' files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DRAWN = 300_000
BINS = 400
LISTED = 60
# Paul Tol's muted and bright sets, told apart by colour-blind readers, then lighter repeats.
COLOURS = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#332288", "#DDCC77", "#117733", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#CC6677", "#AA4499", "#7788AA", "#BB8866", "#559977", "#8866BB", "#AA8800",
)  # fmt: skip
GREY, DARK = "#D5D8DC", "#22303C"


def plain(text: object, most: int = LISTED) -> str:
    """Text that plotly shows as it is: escaped, and cut where it is very long."""
    words = str(text)
    return escape(words if len(words) <= most else words[: most - 1] + "…")


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


def map_figure(
    reference: np.ndarray,
    query: np.ndarray,
    tray: np.ndarray,
    hover: Sequence[str],
    colourings: dict[str, np.ndarray],
) -> Figure:
    """The map: reference grey, query coloured by any of `colourings` (text: one trace a level; numbers: a scale).

    Up to 300,000 points are drawn as points, above that as densities.
    """
    import plotly.graph_objects as go

    figure, owner = go.Figure(), []
    if len(reference) + len(query) > DRAWN:
        return _density(reference, query)
    figure.add_trace(_points(reference, "reference", GREY, size=3, hoverinfo="skip"))
    owner.append("")
    for name, values in colourings.items():
        for trace in _coloured(query, hover, values):
            figure.add_trace(trace)
            owner.append(name)
    first = next(iter(colourings), "")
    for trace, name in zip(figure.data, owner, strict=True):
        trace.visible = name in ("", first)
    buttons = [
        {"label": plain(name), "method": "update", "args": [{"visible": [own in ("", name) for own in owner]}]}
        for name in colourings
    ]
    menu = {"buttons": buttons, "x": 0, "y": 1.08, "xanchor": "left", "direction": "right", "type": "buttons"}
    figure.update_layout(updatemenus=[menu] if len(buttons) > 1 else [], legend={"itemsizing": "constant"})
    if tray.any():
        _mark_tray(figure, reference, query[tray])
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return _layout(figure, 620)


def _points(points: np.ndarray, name: str, colour: Any, *, size: int, **more: Any) -> Any:
    import plotly.graph_objects as go

    marker = {"size": size, "color": colour, "opacity": 0.8}
    return go.Scattergl(x=points[:, 0], y=points[:, 1], mode="markers", marker=marker, name=plain(name, 40), **more)


def _coloured(query: np.ndarray, hover: Sequence[str], values: np.ndarray) -> list[Any]:
    import plotly.graph_objects as go

    text = np.array(hover, dtype=object)
    if values.dtype.kind in "fiu":
        marker = {
            "size": 5,
            "color": values,
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"thickness": 12, "len": 0.85, "y": 0.42},
        }
        return [
            go.Scattergl(
                x=query[:, 0],
                y=query[:, 1],
                mode="markers",
                marker=marker,
                text=text,
                hoverinfo="text",
                showlegend=False,
            )
        ]
    names, number = np.unique(values.astype(str), return_counts=True)
    traces = []
    for i, (name, n) in enumerate(zip(names, number, strict=True)):
        own = values.astype(str) == name
        trace = _points(query[own], f"{name} ({n})", COLOURS[i % len(COLOURS)], size=5)
        traces.append(trace.update(text=text[own], hoverinfo="text"))
    return traces


def _mark_tray(figure: Figure, reference: np.ndarray, cells: np.ndarray) -> None:
    low, high = reference.min(axis=0), reference.max(axis=0)
    width = high[0] - low[0]
    left = high[0] + 0.04 * width
    right = max(float(cells[:, 0].max()), left + 0.2 * width) + 0.02 * width
    line = {"color": "#B03A2E", "width": 1, "dash": "dot"}
    figure.add_shape(type="rect", x0=left, x1=right, y0=low[1], y1=high[1], line=line, layer="below")
    figure.add_annotation(
        x=(left + right) / 2, y=high[1], yshift=12, text="not explained by the reference", showarrow=False,
        font={"color": "#B03A2E", "size": 12},
    )  # fmt: skip


def _density(reference: np.ndarray, query: np.ndarray) -> Figure:
    """Two images on one grid: where the reference is, and where the query is (log of cells a pixel)."""
    import plotly.graph_objects as go

    both = np.concatenate([reference, query])
    limits = [(both[:, i].min(), both[:, i].max() + 1e-6) for i in (0, 1)]
    figure = go.Figure()
    for points, scale, name in ((reference, "Greys", "reference"), (query, "Viridis", "query")):
        image, x, y = np.histogram2d(points[:, 0], points[:, 1], bins=BINS, range=limits)
        shown = np.where(image > 0, np.log10(image + 1), np.nan).T.astype(np.float32)
        figure.add_trace(go.Heatmap(z=shown, x=x, y=y, colorscale=scale, showscale=False, hoverinfo="skip", name=name))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return _layout(figure, 620)


def flow_figure(left: np.ndarray, right: np.ndarray) -> Figure:
    """Flow from query clusters to labels."""
    import plotly.graph_objects as go

    sources, targets = sorted(set(left.astype(str))), sorted(set(right.astype(str)))
    pairs, number = np.unique(np.stack([left.astype(str), right.astype(str)]), axis=1, return_counts=True)
    names = [f"cluster {s}" for s in sources] + targets
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(targets))]
    link = {
        "source": [sources.index(s) for s in pairs[0]],
        "target": [len(sources) + targets.index(t) for t in pairs[1]],
        "value": number.tolist(),
        "color": [colours[targets.index(t)] + "55" for t in pairs[1]],
    }
    node = {"label": [plain(n, 40) for n in names], "color": ["#99A3AE"] * len(sources) + colours, "pad": 10}
    return _layout(go.Figure(go.Sankey(node=node, link=link)), max(380, 24 * max(len(sources), len(targets))))


def composition_figure(batch: np.ndarray, label: np.ndarray) -> Figure:
    """Share of each label in each batch."""
    import plotly.graph_objects as go

    batches, labels = sorted(set(batch.astype(str))), sorted(set(label.astype(str)))
    figure = go.Figure()
    for i, name in enumerate(labels):
        share = [float((label[batch == b].astype(str) == name).mean()) for b in batches]
        shown = [plain(b, 40) for b in batches]
        figure.add_trace(
            go.Bar(y=shown, x=share, name=plain(name, 40), orientation="h", marker_color=COLOURS[i % len(COLOURS)])
        )
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(tickformat=".0%", title="share of the batch's cells")
    figure.update_yaxes(automargin=True, type="category")
    return _layout(figure, max(260, 60 + 34 * len(batches)))


def histogram_figure(values: np.ndarray, title: str, threshold: float | None, said: str) -> Figure:
    """Histogram with a marked threshold."""
    import plotly.graph_objects as go

    values = values[np.isfinite(values)]
    high = np.quantile(values, 0.995) if len(values) else 1.0
    number, edges = np.histogram(np.minimum(values, high), bins=50)
    figure = go.Figure(go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=number, width=np.diff(edges), marker_color="#4477AA"))
    if threshold is not None and np.isfinite(threshold):
        figure.add_vline(x=min(threshold, high), line={"color": "#B03A2E", "dash": "dot"}, annotation_text=plain(said))
    figure.update_xaxes(title=plain(title))
    figure.update_yaxes(title="cells")
    return _layout(figure, 300)


def reliability_figure(table: np.ndarray) -> Figure:
    """Share right against probability on held-out reference cells, with the diagonal."""
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY}, showlegend=False))
    text = [f"{int(n)} cells" for n in table[:, 2]]
    figure.add_trace(
        go.Scatter(
            x=table[:, 0], y=table[:, 1], mode="lines+markers", text=text, line={"color": "#4477AA"}, showlegend=False
        )
    )
    figure.update_xaxes(title="probability", range=[0, 1.02])
    figure.update_yaxes(title="share right (held-out batches)", range=[0, 1.05])
    return _layout(figure, 300)

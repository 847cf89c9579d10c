"""The reference's own map with the query's cells on it, coloured by anything that is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import BadOption
from scgraft.pl.style import add_legend, axes_of, finished, labels_of, novelty_of
from scgraft.results.expressed import decoded_in_reference, measured_in_query
from scgraft.results.placement import Placement
from scgraft.results.points import placed as placed_on
from scgraft.values.colours import GREY, RED, SHAPES, in_order, palette, shapes
from scgraft.values.hierarchy import NO_LABEL, UNKNOWN, no_label
from scgraft.values.mapping import MappedQuery
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RASTER = 20_000  # points above which a vector file would be slow to open; chosen by eye, not measured
# Different values of a column that are told apart by colour and shape (values/colours.py has a hundred).
MOST_NAMES = 100
DOTS = {"linewidths": 0}


def map(
    reference: Reference,
    mapped: MappedQuery,
    *,
    color: str = "label",
    labels: str | None = None,
    adata: AnnData | None = None,
    size: float = 8,  # chosen by eye, not measured
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Query cells on the reference's own map: reference pale, cells that it does not explain in a tray at the right.

    Parameters
    ----------
    reference, mapped
        The reference and the mapping.
    color
        What colours the cells: ``"label"``, with cells that should not be believed as grey crosses; ``"probability"`` of the
        label; ``"novelty"``; any other column of ``mapped.to_frame()``; with `adata`, any column of its obs, or a gene of the
        reference: then the query shows what was measured and the reference what its model decodes, both as log1p of counts
        per ten thousand.
    labels
        Label column; None takes the first.
    adata
        The query.
    size
        Area of a query point.
    ax
        Axes to draw into.
    show, save, return_fig
        As scanpy's: show the figure, write it to a file, return the figure.

    Raises
    ------
    BadOption
        `color` is nothing that the mapping, the query or the reference has.
    NoLabels
        The mapping has no such labels, or no novelty.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> axes = scgraft.pl.map(reference, mapped, color="probability")
    >>> axes.figure.savefig(folder.parent / "map.png")
    """
    name, values, behind = _colouring(reference, mapped, color, labels, adata)
    placed = placed_on(mapped, reference)
    ax, many = axes_of(ax), len(placed.reference) + len(placed.query) > RASTER
    dots: dict[str, Any] = DOTS | {"s": size, "rasterized": many}
    if values.dtype.kind == "f":
        _numbers(ax, placed, name, values, None if behind is None else behind[placed.reference_cells], dots)
    else:
        ax.scatter(placed.reference[:, 0], placed.reference[:, 1], **(dots | {"s": size / 3}), c=GREY)
        _names(ax, placed, values, _all_names(mapped, color, labels, values), dots)
    if placed.tray.any():
        top = (float(placed.query[placed.tray, 0].mean()), float(placed.reference[:, 1].max()))
        style: dict[str, Any] = {"ha": "center", "fontsize": "small", "color": RED}
        ax.annotate("not explained", top, xytext=(0, 8), textcoords="offset points", **style)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return finished(ax, show, save, return_fig)


def _colouring(
    reference: Reference, mapped: MappedQuery, color: str, labels: str | None, adata: AnnData | None
) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Name and values (m,) of what colours the query's cells: text, or float for a scale; of a gene also the reference's (n,)."""
    if color == "label":
        return color, labels_of(mapped, labels).believed, None
    if color == "probability":
        return color, labels_of(mapped, labels).probability.astype(float), None
    if color == "novelty":
        return color, novelty_of(mapped).strength.astype(float), None
    table = mapped.to_frame()
    if color in table:
        return color, _drawable(color, table[color].to_numpy()), None
    if adata is not None and color in adata.obs:
        of_cell = adata.obs.set_axis(adata.obs_names.astype(str))[color]
        return color, _drawable(color, of_cell.loc[mapped.latent.cells].to_numpy()), None
    if color in set(reference.schema.genes.astype(str)):
        if adata is None:
            raise BadOption(f"color={color!r} is a gene: give the query's counts, as adata=..., to see it.")
        measured = measured_in_query(reference, mapped, adata, [color])[:, 0].astype(float)
        return color, measured, decoded_in_reference(reference, [color])[:, 0].astype(float)
    raise BadOption(
        f"color is 'label', 'probability', 'novelty', a column of mapped.to_frame() ({', '.join(table.columns.astype(str))}), or, "
        f"with adata=..., a column of its obs or a gene of the reference, not {color!r}."
    )


def _drawable(name: str, values: np.ndarray) -> np.ndarray:
    """A column as text, or as numbers; whole numbers of few values are names, as those of clusters."""
    if values.dtype.kind == "f" or (values.dtype.kind in "iu" and len(np.unique(values)) > MOST_NAMES):
        return values.astype(float)
    text = values.astype(str)
    if len(np.unique(text)) > MOST_NAMES:
        raise BadOption(f"{name!r} has {len(np.unique(text)):,} different values, too many to tell apart by colour.")
    return text


def _all_names(mapped: MappedQuery, color: str, labels: str | None, values: np.ndarray) -> Sequence[str]:
    """Names that share one palette: a type has the colour that it has on the page, whether the query has cells of it or not."""
    keys = [key for key in mapped.labels if color in (key, f"{key}_call", f"{key}_runner_up", f"{key}_cluster")]
    if color == "label":
        keys = [next(iter(mapped.labels)) if labels is None else labels]
    classes = mapped.labels[keys[0]].classes if keys else ()
    names = (*classes, no_label(classes))
    return names if set(values) <= set(names) else in_order(values)


def _names(ax: Axes, placed: Placement, values: np.ndarray, names: Sequence[str], dots: dict[str, Any]) -> None:
    colours, marks, nothing = palette(names), shapes(names), NO_LABEL if NO_LABEL in names else UNKNOWN
    for name in in_order(values):
        own, mark = placed.query[values == name], "x" if name == nothing else SHAPES[marks[name]][1]
        style = {"linewidths": 0.8} if mark == "x" else {}
        ax.scatter(own[:, 0], own[:, 1], c=colours[name], marker=mark, label=name, **(dots | style))
    add_legend(ax, markerscale=2)


def _numbers(
    ax: Axes, placed: Placement, name: str, values: np.ndarray, behind: np.ndarray | None, dots: dict[str, Any]
) -> None:
    """Query cells, and reference cells where they have a value too, on one scale, cut at 99 % of the values."""
    finite = values[np.isfinite(values)]
    top = float(np.quantile(finite, 0.99)) if len(finite) else 1.0
    if behind is not None:
        top = max(top, float(np.quantile(behind, 0.99)))
    scale: dict[str, Any] = {
        "vmin": min(float(finite.min()), 0.0) if len(finite) else 0.0,
        "vmax": top,
        "cmap": "viridis",
    }
    small = dots | {"s": dots["s"] / 3}
    shown = {"c": GREY} if behind is None else {"c": behind, "alpha": 0.5} | scale
    ax.scatter(placed.reference[:, 0], placed.reference[:, 1], **(small | shown))
    points = ax.scatter(placed.query[:, 0], placed.query[:, 1], c=values, **(dots | scale))
    said = name if behind is None else f"{name}: log1p of counts per 10,000\n(decoded in the reference)"
    ax.figure.colorbar(points, ax=ax, label=said, shrink=0.7)

"""Static figures of a mapping (matplotlib), in scanpy's manner: they draw into `ax`, and return it.

::

    scgraft.pl.map(reference, mapped, color="label")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scgraft.errors import NoLabels
from scgraft.graft.conditions import condition_embeddings
from scgraft.results.colours import COLOURS, GREY, RED, SHAPES, in_order, palette, shapes
from scgraft.results.placement import place
from scgraft.values.calibration import Calibration
from scgraft.values.graft import Graft
from scgraft.values.hierarchy import no_label
from scgraft.values.labels import Labels
from scgraft.values.mapping import MappedQuery
from scgraft.values.names import BATCH
from scgraft.values.options import one_of
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Points above which a vector file would be slow to open.
RASTER = 20_000
COLOURINGS = ("label", "probability", "novelty")


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _labels(mapped: MappedQuery, key: str | None) -> Labels:
    if not mapped.labels or (key is not None and key not in mapped.labels):
        raise NoLabels(
            f"The mapping has no labels {key or ''}; it has {', '.join(mapped.labels) or 'none'}. Choose one of these, or map with "
            "labels=..."
        )
    return mapped.labels[next(iter(mapped.labels)) if key is None else key]


def map(
    reference: Reference,
    mapped: MappedQuery,
    *,
    color: Literal["label", "probability", "novelty"] = "label",
    labels: str | None = None,
    size: float = 8,  # square points, as matplotlib counts; chosen by eye
    ax: Axes | None = None,
) -> Axes:
    """Query cells on the reference's own map: reference grey, cells that it does not explain in a tray at the right.

    Parameters
    ----------
    reference, mapped
        The reference and the mapping.
    color
        What colours the query: ``"label"``, its labels, with cells that should not be believed as grey crosses;
        ``"probability"`` of the label; or ``"novelty"``.
    labels
        Label column; None takes the first.
    size
        Area of a query point.
    ax
        Axes to draw into.

    Raises
    ------
    BadOption
        `color` is none of the three.
    NoLabels
        The mapping has no such labels, or no novelty.
    """
    one_of("color", color, COLOURINGS)
    if color == "novelty" and mapped.novelty is None:
        raise NoLabels("This mapping was made without a calibration, so it has no novelty. Map with one.")
    result = _labels(mapped, labels)
    novel, cluster = (None, None) if mapped.novelty is None else (mapped.novelty.novel, mapped.novelty.cluster)
    placed = place(reference, mapped.latent.mean, novel=novel, cluster=cluster, near=mapped.near)
    ax, many = _axes(ax), len(placed.reference) + len(placed.query) > RASTER
    dots: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": many}
    ax.scatter(placed.reference[:, 0], placed.reference[:, 1], **(dots | {"s": size / 3}), c=GREY)
    if color == "label":
        # A type has the colour that it has on the page, whether the query has cells of it or not.
        nothing = no_label(result.classes)
        names = (*result.classes, nothing)
        colours, marks = palette(names), shapes(names)
        believed = np.where(result.unknown, nothing, result.label)
        for name in in_order(believed):
            own, mark = placed.query[believed == name], "x" if name == nothing else SHAPES[marks[name]][1]
            style = {"linewidths": 0.8} if mark == "x" else {}
            ax.scatter(own[:, 0], own[:, 1], c=colours[name], marker=mark, label=name, **(dots | style))
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small", markerscale=2)
    else:
        values = result.probability if color == "probability" else mapped.novelty.strength  # type: ignore[union-attr]
        top = float(np.quantile(values, 0.99)) if len(values) else None
        points = ax.scatter(placed.query[:, 0], placed.query[:, 1], c=values, vmax=top, cmap="viridis", **dots)
        ax.figure.colorbar(points, ax=ax, label=color, shrink=0.7)
    if placed.tray.any():
        ax.annotate(
            "not explained",
            (float(placed.query[placed.tray, 0].mean()), float(placed.reference[:, 1].max())),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color=RED,
        )
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return ax


def composition(mapped: MappedQuery, batch: np.ndarray, *, labels: str | None = None, ax: Axes | None = None) -> Axes:
    """Share of each label in each batch, stacked; cells that are marked unknown in grey.

    Parameters
    ----------
    mapped
        The mapping.
    batch
        Batch of each mapped cell, (n,), in the order of ``mapped.latent.cells``.
    labels, ax
        As for :func:`map`.
    """
    result, ax, batch = _labels(mapped, labels), _axes(ax), np.asarray(batch).astype(str)
    batches, colours = in_order(batch), palette((*result.classes, no_label(result.classes)))
    left, believed = np.zeros(len(batches)), np.where(result.unknown, no_label(result.classes), result.label)
    for name in in_order(believed):
        share = np.array([(believed[batch == b] == name).mean() for b in batches])
        ax.barh(batches, share, left=left, color=colours[name], label=name)
        left += share
    ax.set(xlim=(0, 1), xlabel="share of the batch's cells")
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return ax


def reliability(calibration: Calibration, *, ax: Axes | None = None) -> Axes:
    """Share right against probability on held-out reference cells; on the diagonal, probabilities mean what they say."""
    ax, table = _axes(ax), calibration.reliability
    ax.plot([0, 1], [0, 1], color=GREY, zorder=0)
    ax.plot(table[:, 0], table[:, 1], color=COLOURS[0], marker="o")
    ax.set(
        xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability", ylabel="share right (held-out batches)", aspect="equal"
    )
    ax.set_title(f"expected calibration error {calibration.expected_error:.1%}", fontsize="medium")
    return ax


def novelty(mapped: MappedQuery, *, ax: Axes | None = None) -> Axes:
    """Histogram of the novelty score, with the threshold."""
    if mapped.novelty is None:
        raise NoLabels("This mapping was made without a calibration, so it has no novelty. Map with one.")
    ax, found = _axes(ax), mapped.novelty
    ax.hist(np.minimum(found.strength, np.quantile(found.strength, 0.995)), bins=50, color=COLOURS[0])
    ax.axvline(1.0, color=RED, linestyle=":")
    ax.set_title(f"{found.novel.mean():.1%} novel (false alarms {found.false_alarms:.0%})", fontsize="medium")
    ax.set(xlabel="novelty, over its threshold", ylabel="cells")
    return ax


def conditions(
    reference: Reference, graft: Graft | None = None, *, covariate: str = BATCH, ax: Axes | None = None
) -> Axes:
    """Embeddings of the batches on their first two principal components, each with its name; a graft's new ones are filled.

    Parameters
    ----------
    reference, graft, covariate
        As for :func:`scgraft.condition_embeddings`.
    ax
        Axes to draw into.

    Raises
    ------
    UnsupportedModel
        The model embeds no such covariate.
    """
    found, ax = condition_embeddings(reference, graft, covariate=covariate), _axes(ax)
    table = found.drop(columns="new").to_numpy(np.float64)
    left, scale, _ = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)
    points = np.zeros((len(table), 2))
    points[:, : len(scale[:2])] = left[:, :2] * scale[:2]
    share = scale[:2] ** 2 / max(float((scale**2).sum()), 1e-12)
    for is_new, face in ((False, "none"), (True, COLOURS[0])):
        own = points[found["new"].to_numpy() == is_new]
        ax.scatter(own[:, 0], own[:, 1], facecolors=face, edgecolors=COLOURS[0], label="new" if is_new else "reference")
    for name, (x, y) in zip(found.index, points, strict=True):
        ax.annotate(str(name), (x, y), xytext=(4, 4), textcoords="offset points", fontsize="small")
    for axis, part in zip("xy", share, strict=False):
        ax.set(**{f"{axis}label": f"component {'xy'.index(axis) + 1} ({part:.0%})"})
    ax.legend(frameon=False, fontsize="small")
    return ax

"""Figures of a mapping beside the map: labels in batches and clusters, how sure, unknown groups, how well each batch was mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import BadOption, NoLabels
from scgraft.pl.style import add_legend, axes_of, finished, labels_of, novelty_of, of_each_cell
from scgraft.values.calibration import Calibration
from scgraft.values.colours import COLOURS, GREY, RED, in_order, palette
from scgraft.values.hierarchy import no_label
from scgraft.values.mapping import MappedQuery

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOSSIER_GENES = 8  # of each group of unknown cells, in the heat map; chosen by eye, not measured


def composition(
    mapped: MappedQuery,
    batch: Sequence[object] | np.ndarray,
    *,
    labels: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Share of each label in each batch, stacked; cells that are marked unknown in grey.

    Parameters
    ----------
    mapped
        The mapping.
    batch
        Batch of each mapped cell, (n,), in the order of ``mapped.latent.cells``.
    labels, ax, show, save, return_fig
        As for :func:`map`.

    Raises
    ------
    QueryError
        `batch` is not one value for each mapped cell.
    NoLabels
        The mapping has no such labels.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> scgraft.pl.composition(mapped, adata.obs["batch"]).get_xlabel()
    "share of the batch's cells"
    """
    result, of_cell = labels_of(mapped, labels), of_each_cell(mapped, batch)
    ax, batches, colours = axes_of(ax), in_order(of_cell), palette((*result.classes, no_label(result.classes)))
    left, believed = np.zeros(len(batches)), result.believed
    for name in in_order(believed):
        share = np.array([(believed[of_cell == b] == name).mean() for b in batches])
        ax.barh(batches, share, left=left, color=colours[name], label=name)
        left += share
    ax.set(xlim=(0, 1), xlabel="share of the batch's cells")
    ax.invert_yaxis()
    add_legend(ax)
    return finished(ax, show, save, return_fig)


def flow(
    mapped: MappedQuery,
    *,
    labels: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Where the cells of each of the query's own clusters (left) end among the labels (right); grey: not to be believed.

    Parameters
    ----------
    mapped
        The mapping, made with a calibration.
    labels, ax, show, save, return_fig
        As for :func:`map`.

    Raises
    ------
    NoLabels
        The mapping has no such labels, or was made without a calibration.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> len(scgraft.pl.flow(mapped).patches) > 0
    True
    """
    result, found, ax = labels_of(mapped, labels), novelty_of(mapped), axes_of(ax)
    believed, colours = result.believed, palette((*result.classes, no_label(result.classes)))
    cluster = found.cluster.astype(str)
    left, right = in_order(cluster), in_order(believed)
    table = np.array([[(believed[cluster == c] == name).sum() for name in right] for c in left], dtype=float)
    gap = 0.015 * table.sum()
    starts, ends = _stacked(table.sum(axis=1), gap), _stacked(table.sum(axis=0), gap)
    curve = np.linspace(0, 1, 40)
    bend = 3 * curve**2 - 2 * curve**3
    out, into = starts.copy(), ends.copy()
    for i in range(len(left)):
        for j, name in enumerate(right):
            n = table[i, j]
            low = out[i] + (into[j] - out[i]) * bend
            ax.fill_between(0.03 + 0.94 * curve, low, low + n, color=colours[name], alpha=0.55, linewidth=0)
            out[i] += n
            into[j] += n
    ax.bar(np.zeros(len(left)), table.sum(axis=1), 0.05, bottom=starts, color=GREY)
    ax.bar(np.ones(len(right)), table.sum(axis=0), 0.05, bottom=ends, color=[colours[name] for name in right])
    least = 0.012 * table.sum()  # of a name's cells: a smaller band has no room for a line of text
    for i, c in enumerate(left):
        if table[i].sum() > least:
            ax.text(-0.04, starts[i] + table[i].sum() / 2, f"cluster {c}", ha="right", va="center", fontsize="small")
    for j, name in enumerate(right):
        if table[:, j].sum() > least:
            ax.text(1.04, ends[j] + table[:, j].sum() / 2, name, ha="left", va="center", fontsize="small")
    ax.set(xlim=(-0.35, 1.6), xticks=[], yticks=[])
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    return finished(ax, show, save, return_fig)


def reliability(
    calibration: Calibration,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Share right against probability on held-out reference cells; on the diagonal, probabilities mean what they say.

    Parameters
    ----------
    calibration
        One of ``mapped.calibration``.
    ax, show, save, return_fig
        As for :func:`map`.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> scgraft.pl.reliability(mapped.calibration["cell_type"]).get_xlabel()
    'probability'
    """
    ax, table = axes_of(ax), calibration.reliability
    ax.plot([0, 1], [0, 1], color=GREY, zorder=0)
    ax.plot(table[:, 0], table[:, 1], color=COLOURS[0], marker="o")
    said = "share right (held-out batches)"
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability", ylabel=said, aspect="equal")
    ax.set_title(f"expected calibration error {calibration.expected_error:.1%}", fontsize="medium")
    return finished(ax, show, save, return_fig)


def novelty(
    mapped: MappedQuery,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Histogram of the novelty score, with the threshold.

    Parameters
    ----------
    mapped
        The mapping, made with a calibration.
    ax, show, save, return_fig
        As for :func:`map`.

    Raises
    ------
    NoLabels
        The mapping was made without a calibration.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> scgraft.pl.novelty(mapped).get_xlabel()
    'novelty, over its threshold'
    """
    found, ax = novelty_of(mapped), axes_of(ax)
    ax.hist(np.minimum(found.strength, np.quantile(found.strength, 0.995)), bins=50, color=COLOURS[0])
    ax.axvline(1.0, color=RED, linestyle=":")
    ax.set_title(f"{found.novel.mean():.1%} novel (false alarms {found.false_alarms:.0%})", fontsize="medium")
    ax.set(xlabel="novelty, over its threshold", ylabel="cells")
    return finished(ax, show, save, return_fig)


def dossiers(
    mapped: MappedQuery,
    *,
    n_genes: int = DOSSIER_GENES,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Heat map of the groups that the reference does not explain: genes that they have more, or less, than expected.

    The colour is the mean residual under the reference's model, in standard deviations of one cell; white where a gene is not
    among those of the group's dossier.

    Parameters
    ----------
    mapped
        The mapping, made with a calibration.
    n_genes
        Genes of each group, of those that it has more and of those that it has less.
    ax, show, save, return_fig
        As for :func:`map`.

    Raises
    ------
    NoLabels
        The mapping was made without a calibration, or has no such group.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> axes = scgraft.pl.dossiers(mapped)
    >>> len(axes.get_yticks()) == len(mapped.novelty.dossiers)
    True
    """
    groups = novelty_of(mapped).dossiers
    if not groups:
        raise NoLabels("The reference explains all groups of this query: there is no dossier to draw.")
    parts = [(*d.genes[:n_genes], *d.lacking[:n_genes]) for d in groups]
    genes = list(dict.fromkeys(gene for part in parts for gene, _ in part))
    table = np.full((len(groups), len(genes)), np.nan)
    for i, part in enumerate(parts):
        for gene, value in part:
            table[i, genes.index(gene)] = value
    ax, most = axes_of(ax, (max(4, 0.28 * len(genes) + 2), 1.4 + 0.4 * len(groups))), float(np.nanmax(np.abs(table)))
    image = ax.imshow(table, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize="small")
    ax.set_yticks(range(len(groups)), [f"cluster {d.cluster} ({d.n_cells:,} cells)" for d in groups])
    ax.figure.colorbar(image, ax=ax, label="residual (sd of a cell)", shrink=0.8)
    return finished(ax, show, save, return_fig)


def qc(
    mapped: MappedQuery,
    batch: Sequence[object] | np.ndarray | None = None,
    *,
    value: str = "map_distance",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """How well each batch was mapped: boxes (quartiles, 5 and 95 %) of a number of its cells.

    Parameters
    ----------
    mapped
        The mapping.
    batch
        Batch of each mapped cell, (n,); None takes all cells together.
    value
        A column of numbers of ``mapped.to_frame()``: ``"map_distance"``, ``"novelty"``, ``"<key>_probability"``, ...
    ax, show, save, return_fig
        As for :func:`map`.

    Raises
    ------
    BadOption
        There is no such column of numbers.
    QueryError
        `batch` is not one value for each mapped cell.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> scgraft.pl.qc(mapped, adata.obs["batch"]).get_xlabel()
    'map distance'
    """
    table = mapped.to_frame()
    numbers = [str(name) for name in table.columns if table[name].dtype.kind == "f"]
    if value not in numbers:
        raise BadOption(f"value is one of {', '.join(numbers)}, not {value!r}.")
    of_cell = of_each_cell(mapped, np.full(len(table), "all cells") if batch is None else batch)
    ax, names, found = axes_of(ax), in_order(of_cell), table[value].to_numpy()
    parts = [found[(of_cell == name) & np.isfinite(found)] for name in names]
    style = {"color": COLOURS[0]}
    ax.boxplot(
        parts, vert=False, whis=(5, 95), showfliers=False, boxprops=style, whiskerprops=style, capprops=style,
        medianprops={"color": RED},
    )  # fmt: skip
    ax.set_yticks(range(1, len(names) + 1), [f"{n} ({len(p):,})" for n, p in zip(names, parts, strict=True)])
    ax.set(xlabel=value.replace("_", " "))
    if value == "novelty":
        ax.axvline(1.0, color=RED, linestyle=":")
    ax.invert_yaxis()
    return finished(ax, show, save, return_fig)


def _stacked(heights: np.ndarray, gap: float) -> np.ndarray:
    """Where bars of some heights begin when they lie on each other with gaps, all of them around one middle."""
    begins = np.cumsum(heights) - heights + gap * np.arange(len(heights))
    middle: np.ndarray = begins - (begins[-1] + heights[-1]) / 2
    return middle

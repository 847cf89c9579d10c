"""What all figures share: where they draw, how they end, and the parts of a mapping that they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import NoLabels, QueryError
from scgraft.values.labels import Labels
from scgraft.values.mapping import MappedQuery
from scgraft.values.novelty import Novelty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def axes_of(ax: Axes | None, size: tuple[float, float] | None = None) -> Axes:
    """The axes that were given, or new ones of a size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained", figsize=size)[1]


def finished(ax: Axes, show: bool | None, save: str | Path | None, return_fig: bool) -> Axes | Figure | None:
    """Write and show a figure as asked for; what its function returns."""
    drawn: Any = ax.figure
    figure: Figure = drawn if hasattr(drawn, "savefig") else drawn.figure  # of a part of a figure the whole
    if save is not None:
        figure.savefig(save, bbox_inches="tight", dpi=200)
    if show:
        import matplotlib.pyplot as plt

        plt.show()
        return None
    return figure if return_fig else ax


def add_legend(ax: Axes, markerscale: float = 1.0) -> None:
    """A legend beside the axes."""
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small", markerscale=markerscale)


def labels_of(mapped: MappedQuery, key: str | None) -> Labels:
    """The labels of a column, or the first."""
    if not mapped.labels or (key is not None and key not in mapped.labels):
        raise NoLabels(
            f"The mapping has no labels {key or ''}; it has {', '.join(mapped.labels) or 'none'}. Choose one of these, or map with labels=... (--labels)."
        )
    return mapped.labels[next(iter(mapped.labels)) if key is None else key]


def novelty_of(mapped: MappedQuery) -> Novelty:
    """The novelty of a mapping that has one."""
    if mapped.novelty is None:
        raise NoLabels(
            "This mapping was made without a calibration, so it has no novelty and no query clusters. Map with one."
        )
    return mapped.novelty


def of_each_cell(mapped: MappedQuery, values: Sequence[object] | np.ndarray) -> np.ndarray:
    """One text for each mapped cell, (m,)."""
    found = np.asarray(values).astype(str)
    if found.shape != mapped.latent.cells.shape:
        raise QueryError(
            f"There are {len(found):,} batches for {len(mapped.latent.cells):,} mapped cells: give one each."
        )
    return found

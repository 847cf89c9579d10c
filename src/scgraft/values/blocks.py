"""Input blocks of a model beside its genes, such as surface proteins, and what of them was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.numerics.sealed import seal_fields
from scgraft.values.names import BATCH

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

PROTEINS = "proteins"


@dataclass(frozen=True)
class Block:
    """An input of a model beside its genes.

    Parameters
    ----------
    name
        ``"proteins"``.
    features
        Names in the model's order, (F,).
    place
        obsm key, or modality, where the reference's own cells have it.
    panel
        Covariate that decides which features a cell was stained with: ``"batch"``, or one of the panels.
    """

    name: str
    features: tuple[str, ...]
    place: str | None = None
    panel: str = BATCH


@dataclass(frozen=True)
class BlockCounts:
    """Counts of a block, CSR float32 (n, F), and which of them were `measured`, (n, F) bool: what was not is no zero."""

    counts: csr_matrix
    measured: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)

    def take(self, index: np.ndarray | slice) -> BlockCounts:
        """Some of the cells."""
        return BlockCounts(self.counts[index], self.measured[index])

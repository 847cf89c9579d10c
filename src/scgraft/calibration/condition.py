"""What a query's cells were measured with: how deeply, and in which genes. Held-out cells are brought to the same.

The same model and the same types are harder to tell apart from 150 counts than from 3,000, and from half of the genes than
from all of them. A calibration holds for cells that were measured like those that it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scgraft.expression.generate import counted_cells
from scgraft.model.build import take_cells
from scgraft.novelty.score import present_genes
from scgraft.values.blocks import BlockCounts
from scgraft.values.query import Query
from scgraft.values.reference import Reference

# Share of the counts in genes that the query lacks, below which all of them are used: a fiftieth moves no held-out number
# by more than its error, and every set of genes needs a calibration of its own.
LOST = 0.02
DEPTH_CELLS = 200  # the median depth of so many cells is known to a few percent
SHALLOWEST = 6  # halvings of the depth at most: a 64th of 3,000 counts are 47


@dataclass(frozen=True)
class Condition:
    """How a query's cells were measured, against those of the reference.

    Parameters
    ----------
    share
        Share of the reference cells' counts, 1 or a half, a quarter, ...
    genes
        Genes of the reference that are measured, (G,) bool.
    blocks
        Features of other inputs that are measured, (F,) bool by name; an input that is not named has all of them.
    """

    share: float
    genes: np.ndarray
    blocks: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def as_reference(self) -> bool:
        """Whether the reference's own cells were measured so."""
        return self.share == 1 and bool(self.genes.all()) and all(own.all() for own in self.blocks.values())


def own_condition(reference: Reference) -> Condition:
    """The condition of the reference's own cells."""
    return Condition(1.0, np.ones(len(reference.schema.genes), bool))


def condition_of(reference: Reference, query: Query, *, seed: int = 0) -> Condition:
    """The condition of a query: genes that it lacks, if they are a fiftieth of its counts or more, and its depth.

    The depth is the nearest halving of the reference's, so that queries share calibrations; a query that is deeper than the
    reference has the reference's. Values of a normal likelihood have no depth.
    """
    genes = own_condition(reference).genes
    if query.alignment.found_weight < 1 - LOST or query.alignment.lacking:
        genes = present_genes(reference, query)
    blocks = {name: np.asarray(block.measured.any(axis=0)) for name, block in query.blocks.items()}
    if reference.hyper.gene_likelihood == "normal":
        return Condition(1.0, genes, blocks)
    assert reference.latent is not None
    n = len(reference.latent.mean)
    index = np.sort(np.random.default_rng(seed).permutation(n)[:DEPTH_CELLS])
    own = np.median(depths(counted_cells(reference, index, seed=seed), genes))
    halvings = np.log2(max(own, 1.0) / max(np.median(depths(query, genes)), 1.0))
    return Condition(0.5 ** float(np.clip(np.rint(halvings), 0, SHALLOWEST)), genes, blocks)


def depths(query: Query, genes: np.ndarray) -> np.ndarray:
    """Counts (n,) of each cell in some genes, (G,) bool."""
    counts: np.ndarray = query.counts @ genes.astype(np.float32)
    return counts


def measured_as(query: Query, condition: Condition, names: np.ndarray, *, seed: int) -> tuple[Query, np.ndarray]:
    """Cells as they were under a condition, without those that have no count left, and the positions of the others.

    Every molecule is kept with the same chance (binomial thinning, seeded), and genes that are not measured have no counts.
    `names` are those of the genes.
    """
    if condition.as_reference:
        return query, np.arange(len(query.cells))
    counts = query.counts.astype(np.float32).copy()
    if condition.share < 1:
        whole = np.rint(counts.data).astype(np.int64)
        counts.data = np.random.default_rng(seed).binomial(whole, condition.share).astype(np.float32)
    counts = counts.multiply(condition.genes[None, :]).tocsr().astype(np.float32)
    counts.eliminate_zeros()
    left = np.flatnonzero(np.diff(counts.indptr))
    missing = tuple(names[~condition.genes].astype(str).tolist())
    found = float(condition.genes @ np.asarray(query.counts.sum(axis=0)).ravel() / max(query.counts.sum(), 1.0))
    alignment = replace(query.alignment, missing=missing, n_found=int(condition.genes.sum()), found_weight=found)
    blocks = {name: blanked(block, condition.blocks.get(name)) for name, block in query.blocks.items()}
    return take_cells(replace(query, counts=counts, alignment=alignment, blocks=blocks), left), left


def blanked(block: BlockCounts, measured: np.ndarray | None) -> BlockCounts:
    """The block without the features that are not `measured`, (F,) bool; None leaves all of them."""
    if measured is None or measured.all():
        return block
    counts = block.counts.multiply(measured[None, :]).tocsr().astype(np.float32)
    counts.eliminate_zeros()
    return BlockCounts(counts, block.measured & measured[None, :])

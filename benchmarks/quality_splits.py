"""Which cells are the reference and which the query: every split of the quality benchmark, from files of real cells.

Each split is a shift that users meet. Two kinds are simulated on real cells, and named so: a condition that induces a
twentieth of the genes with a strength of its own in each cell type, and a technology that captures each gene at its own
rate and a quarter of the molecules (a tenth, and rates that differ more, where it is "far").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

REFERENCE_CELLS, QUERY_CELLS, GENES = 700, 500, 1000


@dataclass(frozen=True)
class Cells:
    """Which cells of a file the reference is trained on: batches, and types that are left out."""

    name: str
    file: str
    batches: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A reference and a query: its batches, the types it keeps or lacks, its size, and what is done to it.

    `dominated` is a type and the share of the query's cells that it makes up.
    """

    name: str
    kind: str
    reference: Cells
    batches: tuple[str, ...]
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    dominated: tuple[str, float] | None = None
    n_cells: int = QUERY_CELLS
    simulated: Literal["", "condition", "technology", "far technology"] = ""
    models: tuple[str, ...] = ("SCVI",)

    @property
    def novel(self) -> tuple[str, ...]:
        """Types that were left out of the reference on purpose."""
        return self.reference.left_out


BOTH = ("SCVI", "SCANVI")
PBMC = Cells("pbmc-v1v3", "pbmc_10x_4batch", ("10x_v1_pbmc3k", "10x_V3"))
PBMC_QUERY = ("10x_V2", "10x_VDJ")
PBMC_TO_V1 = Cells("pbmc-v2v3vdj", "pbmc_10x_4batch", ("10x_V2", "10x_V3", "10x_VDJ"))
DONORS = Cells("pancreas", "pancreas_segerstolpe_1k", tuple(f"Non_T2D_{i}" for i in (1, 2, 3, 4)))
DONORS_QUERY = ("Non_T2D_5", "Non_T2D_6")
LINES = Cells("lines-3", "sc_mixology_lines_celseq2_dropseq", ("CELseq2", "Dropseq"))
PLATES = ("CELseq2_5cl_p1", "CELseq2_5cl_p2", "CELseq2_5cl_p3")
LINES_5 = Cells("lines-5", "sc_mixology_lines_celseq2_dropseq", PLATES[:2])
LINES_10X = Cells("lines-10x", "sc_mixology_lines_10x_894", ("10x",))
ENDO = Cells("endocrine", "mouse_endocrinogenesis_e15", ("half 1",))
HALF = ("half 2",)
CITE = Cells("citeseq", "pbmc_citeseq_2batch", ("10x_v3_pbmc10k_protein",))


def _without(cells: Cells, *types: str) -> Cells:
    return replace(cells, name=f"{cells.name}-no-{'-'.join(types)}".replace(" ", "_").replace("/", ""), left_out=types)


SPLITS: tuple[Split, ...] = (
    Split("pbmc: v2, VDJ on v1, v3", "technology, 2 batches", PBMC, PBMC_QUERY, models=BOTH),
    Split("pbmc: VDJ on v1, v3", "technology", PBMC, PBMC_QUERY[1:]),
    Split("pbmc: v1 on v2, v3, VDJ", "many to one", PBMC_TO_V1, ("10x_v1_pbmc3k",), models=BOTH),
    Split("pbmc: 5k on 10k, CITE-seq", "small shift", CITE, ("10x_v3_pbmc5k_protein",)),
    Split("pancreas: 2 donors on 4", "donors", DONORS, DONORS_QUERY, models=BOTH),
    Split("pancreas: 1 donor on 4", "donors", DONORS, DONORS_QUERY[1:]),
    Split("lines: plates on CEL-seq2, Drop-seq", "technology, 2 of 5 new", LINES, PLATES, models=BOTH),
    Split("lines: plate, Drop-seq on plates", "technology", LINES_5, ("CELseq2_5cl_p3", "Dropseq")),
    Split("lines: Drop-seq on 10x", "technology, one batch", LINES_10X, ("Dropseq",)),
    Split("lines: CEL-seq2 on 10x", "technology, one batch", LINES_10X, ("CELseq2",)),
    Split("endocrine: half on half", "no shift", ENDO, HALF),
    Split("pbmc: condition", "condition (simulated)", PBMC, PBMC_QUERY, simulated="condition"),
    Split("endocrine: condition", "condition (simulated)", ENDO, HALF, simulated="condition"),
    Split("endocrine: technology", "technology (simulated)", ENDO, HALF, simulated="technology"),
    Split("pancreas: technology", "technology (simulated)", DONORS, DONORS_QUERY, simulated="technology"),
    Split("endocrine: far technology", "technology (simulated)", ENDO, HALF, simulated="far technology"),
    Split("pbmc: far technology", "technology (simulated)", PBMC, PBMC_QUERY, simulated="far technology", models=BOTH),
    Split("pancreas: far technology", "technology (simulated)", DONORS, DONORS_QUERY, simulated="far technology"),
    Split("pbmc: far technology, B only", "composition (simulated)", PBMC, PBMC_QUERY, ("B cells",), simulated="far technology"),
    Split("pbmc: B only", "composition", PBMC, PBMC_QUERY, only=("B cells",)),
    Split("pbmc: T only", "composition", PBMC, PBMC_QUERY, only=("T/NK cells",), models=BOTH),
    Split("pbmc: no T", "composition", PBMC, PBMC_QUERY, without=("T/NK cells",)),
    Split("pbmc: 90 % B", "composition", PBMC, PBMC_QUERY, dominated=("B cells", 0.9)),
    Split("pancreas: alpha only", "composition", DONORS, DONORS_QUERY, only=("alpha",)),
    Split("pancreas: ductal only", "composition", DONORS, DONORS_QUERY, only=("ductal",)),
    Split("pancreas: no alpha", "composition", DONORS, DONORS_QUERY, without=("alpha",)),
    Split("endocrine: Beta only", "composition", ENDO, HALF, only=("Beta",)),
    Split("endocrine: technology, Alpha only", "composition (simulated)", ENDO, HALF, ("Alpha",), simulated="technology"),
    Split("lines: HCC827 only", "composition", LINES, PLATES, only=("HCC827",)),
    Split("pbmc: 20 cells", "small query", PBMC, PBMC_QUERY, n_cells=20),
    Split("pbmc: 100 cells", "small query", PBMC, PBMC_QUERY, n_cells=100),
    Split("pancreas: 20 cells", "small query", DONORS, DONORS_QUERY, n_cells=20),
    Split("pancreas: 100 cells", "small query", DONORS, DONORS_QUERY, n_cells=100),
    Split("pbmc: B left out", "left out", _without(PBMC, "B cells"), PBMC_QUERY, models=BOTH),
    Split("pbmc: monocytes left out", "left out", _without(PBMC, "Monocytes"), PBMC_QUERY),
    Split("pbmc: T left out", "left out", _without(PBMC, "T/NK cells"), PBMC_QUERY),
    Split("pancreas: alpha left out", "left out", _without(DONORS, "alpha"), DONORS_QUERY),
    Split("pancreas: beta left out", "left out", _without(DONORS, "beta"), DONORS_QUERY, models=BOTH),
    Split("pancreas: ductal left out", "left out", _without(DONORS, "ductal"), DONORS_QUERY),
    Split("endocrine: Ductal left out", "left out", _without(ENDO, "Ductal"), HALF),
    Split("endocrine: Alpha left out", "left out", _without(ENDO, "Alpha"), HALF),
)  # fmt: skip
QUICK = ("pbmc: v2, VDJ on v1, v3", "pancreas: 2 donors on 4", "pbmc: B only", "pbmc: B left out")


def read_cells(folder: Path, file: str) -> AnnData:
    """A file of cells; one with a single batch is halved at random, always in the same way."""
    import anndata

    adata = anndata.read_h5ad(folder / f"{file}.h5ad")
    if adata.obs["batch"].nunique() == 1:
        half = np.random.default_rng(0).integers(1, 3, adata.n_obs)
        adata.obs["batch"] = [f"half {i}" for i in half]
    for column in ("batch", "cell_type"):
        adata.obs[column] = adata.obs[column].astype(str).astype(object)
    adata = adata[adata.obs["cell_type"] != "unassigned"]
    adata.obs = adata.obs[["batch", "cell_type"]].copy()
    return adata.copy()


def reference_cells(adata: AnnData, cells: Cells, seed: int) -> AnnData:
    """At most 700 cells in 1000 variable genes; another sample for each seed."""
    import scanpy as sc

    rng = np.random.default_rng(seed)
    kept = adata.obs["batch"].isin(cells.batches) & ~adata.obs["cell_type"].isin(cells.left_out)
    index = rng.permutation(np.flatnonzero(kept))[:REFERENCE_CELLS]
    part = adata[np.sort(index)].copy()
    sc.pp.filter_genes(part, min_cells=3)
    normal = part.copy()
    sc.pp.normalize_total(normal, target_sum=1e4)
    sc.pp.log1p(normal)
    sc.pp.highly_variable_genes(normal, n_top_genes=min(GENES, part.n_vars))
    return part[:, normal.var["highly_variable"].to_numpy()].copy()


def query_cells(adata: AnnData, split: Split, seed: int) -> AnnData:
    """The query of a split: all genes, never more than `split.n_cells` cells."""
    rng = np.random.default_rng(1000 + seed)
    types = adata.obs["cell_type"].to_numpy()
    kept = adata.obs["batch"].isin(split.batches).to_numpy() & ~np.isin(types, split.without)
    if split.only:
        kept &= np.isin(types, split.only)
    index = rng.permutation(np.flatnonzero(kept))
    if split.dominated:
        rare, share = split.dominated
        inside, outside = index[types[index] == rare], index[types[index] != rare]
        index = np.concatenate([inside, outside[: int(len(inside) * (1 / share - 1))]])
    query = adata[np.sort(rng.permutation(index)[: split.n_cells])].copy()
    if split.simulated:
        query.X = _simulate(query, split.simulated, seed)
    query.obs_names = [f"query {name}" for name in query.obs_names]
    return query


def _simulate(query: AnnData, what: str, seed: int) -> object:
    from scipy import sparse

    # The shift is the same for every seed of the sample: it is the property of a laboratory, not of a draw of cells.
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    counts = query.X.toarray()
    if what != "condition":
        depth, spread = (0.25, 0.7) if what == "technology" else (0.1, 1.2)
        capture = np.minimum(depth * np.exp(spread * fixed.standard_normal(query.n_vars)), 1.0)
        return sparse.csr_matrix(rng.binomial(counts.astype(np.int64), capture).astype(np.float32))
    induced = fixed.random(query.n_vars) < 0.05
    types = np.unique(query.obs["cell_type"])
    strength = dict(zip(types, fixed.uniform(0.5, 1.5, len(types)), strict=True))
    fold = np.array([strength[t] for t in query.obs["cell_type"]])
    extra = rng.poisson((counts + 0.1) * (np.exp(1.2 * fold[:, None]) - 1) * induced[None, :])
    return sparse.csr_matrix((counts + extra).astype(np.float32))

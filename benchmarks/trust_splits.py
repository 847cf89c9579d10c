"""Which cells are the reference and which the query in benchmarks/trust.py, and what is done to the query.

Every constant of the package that concerns novelty, sets or the verdict may be chosen on the splits of `TUNED` data sets
alone; those of the others prove it. What is done to a query (`CHANGES`) is a shift that users meet, on real cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

REFERENCE_CELLS, QUERY_CELLS, GENES = 600, 400, 1000
SHALLOW = 1 / 6  # 200 counts of 1,200
TUNED = ("pbmc_10x_4batch", "pancreas_segerstolpe_1k", "pig_airway_cf", "pbmc_zheng_facs")


@dataclass(frozen=True)
class Split:
    """A reference, and the query that is mapped onto it.

    Parameters
    ----------
    file, reference
        Cells that the reference is trained on: a file, and some of its batches (a share: a random part of the cells).
    left_out
        Labels that the reference lacks.
    query_file, query
        The same for the query; "" is the same file, and () the batches that the reference has not.
    key
        Column of the labels.
    rename
        Labels of the query in the words of the reference.
    """

    name: str
    file: str
    reference: tuple[str, ...] | float
    left_out: tuple[str, ...] = ()
    query_file: str = ""
    query: tuple[str, ...] = ()
    key: str = "cell_type"
    rename: tuple[tuple[str, str], ...] = ()

    @property
    def tuned(self) -> bool:
        """Whether constants may be chosen on it."""
        return self.file in TUNED


DONORS = tuple(f"Non_T2D_{i}" for i in (1, 2, 3, 4))
FACS = (
    ("CD14+ Mono", "Mono_CD14"),
    ("CD8 T", "T_CD8"),
    ("Memory CD4 T", "T_CD4"),
    ("Naive CD4 T", "T_CD4"),
)
SORTED = {"file": "pbmc_zheng_facs", "reference": ("10x_v1_FACS",), "query_file": "pbmc3k_labelled", "rename": FACS}
LINES = "sc_mixology_lines_celseq2_dropseq"
ENDOCRINE, LUNG = "mouse_endocrinogenesis_e15", "mouse_lung_tumor_zilionis"
PIGS = ("SWT1", "SWT2", "SWT3")
BARON, SCHOOL = "pancreas_baron_human", ("human1", "human2", "human3")
PBMC, OLD = "pbmc_10x_4batch", ("10x_V2", "10x_V3", "10x_VDJ")
SPLITS = (
    Split("pbmc: v1 on v2, v3, VDJ", PBMC, OLD),
    Split("islets: donor 4", BARON, SCHOOL),
    Split("sorted: T left out near NK", left_out=("T_CD4", "T_CD8"), **SORTED),
    Split("lung: T left out near NK", LUNG, ("h_1", "h_2", "t_1"), ("T cells",)),
    Split("pancreas: donors", "pancreas_segerstolpe_1k", DONORS),
    Split("lung: tumour on healthy", LUNG, ("h_1", "h_2"), query=("t_1", "t_2")),
    Split("pig: CF on wild type", "pig_airway_cf", PIGS, query=("SCF1", "SCF2", "SCF3")),
    Split("lines: plates on CEL-seq2, Drop-seq", LINES, ("CELseq2", "Dropseq")),
    Split("pbmc: T left out", PBMC, ("10x_v1_pbmc3k", "10x_V3"), ("T/NK cells",)),
    Split("islets: beta left out", BARON, SCHOOL, ("beta",)),
    Split("pancreas: alpha left out", "pancreas_segerstolpe_1k", DONORS, ("alpha",)),
    Split("cortex: donor 3", "cortex_allen", ("H200.1023", "H200.1025")),
    Split("pig: immune left out", "pig_airway_cf", PIGS, ("Immune cell",), query=("SWT4", "SCF1", "SCF3")),
    Split("endocrine: Ductal left out", ENDOCRINE, 0.5, ("Ductal",)),
    Split("islets: reads on inDrop", BARON, SCHOOL, query_file="pancreas_segerstolpe_1k", rename=(("PSC", "stellate"),)),
    Split("sorted: pbmc3k", **SORTED),
    Split("citeseq: 5k on 10k", "pbmc_citeseq_2batch", ("10x_v3_pbmc10k_protein",)),
)  # fmt: skip


def folder_name(name: str) -> str:
    """A name as that of a file."""
    return "".join(c if c.isalnum() else "-" for c in name)


def cells_of(split: Split, data: Path) -> tuple[AnnData, AnnData]:
    """The cells of the reference, over its most variable genes, and those of the query, with all of theirs."""
    import anndata

    rng = np.random.default_rng(0)
    adata = anndata.read_h5ad(data / f"{split.file}.h5ad")
    adata.obs["cell_type"] = adata.obs[split.key].astype(str)
    if isinstance(split.reference, float):
        inside = rng.random(adata.n_obs) < split.reference
    else:
        inside = adata.obs["batch"].astype(str).isin(split.reference).to_numpy()
    known = ~adata.obs["cell_type"].isin(split.left_out).to_numpy()
    reference, query = adata[inside & known].copy(), adata[~inside].copy()
    if split.query_file:
        query = anndata.read_h5ad(data / f"{split.query_file}.h5ad")
        query.obs["cell_type"] = query.obs["cell_type"].astype(str).replace(dict(split.rename))
    if split.query:
        query = query[query.obs["batch"].astype(str).isin(split.query).to_numpy()].copy()
    if isinstance(split.reference, float):
        query.obs["batch"] = "query"
    reference = reference[np.sort(rng.permutation(reference.n_obs)[:REFERENCE_CELLS])].copy()
    query = query[np.sort(rng.permutation(query.n_obs)[:QUERY_CELLS])].copy()
    shared = reference.var_names.isin(query.var_names)
    reference = reference[:, shared].copy()
    reference = reference[:, most_variable(reference)].copy()
    reference = reference[np.asarray(reference.X.sum(axis=1)).ravel() > 0].copy()
    for part in (reference, query):
        part.obs = part.obs[["batch", "cell_type"]].astype(str)
        part.uns.clear()
        part.obsm.clear()
        part.var = part.var[[]]
    query.obs_names = [f"query {name}" for name in query.obs_names]
    return reference, query


def most_variable(adata: AnnData) -> np.ndarray:
    """Positions of the genes with the largest variance over its mean of log counts per ten thousand."""
    total = np.maximum(np.asarray(adata.X.sum(axis=1)), 1)
    x = np.log1p(adata.X.toarray() * (1e4 / total))
    spread = x.var(axis=0) / (x.mean(axis=0) + 0.1)
    return np.sort(np.argsort(-spread, kind="stable")[:GENES])


def thinned(query: AnnData, share: float) -> AnnData:
    """The query with a share of its counts (binomial thinning)."""
    rng = np.random.default_rng(0)
    out, counts = query.copy(), query.X.tocsr().astype(np.float32)
    counts.data = rng.binomial(np.rint(counts.data).astype(np.int64), share).astype(np.float32)
    counts.eliminate_zeros()
    out.X = counts
    return out


def without_genes(query: AnnData, share: float, genes: np.ndarray) -> AnnData:
    """The query without a random share of the reference's genes."""
    gone = np.random.default_rng(0).permutation(genes)[: int(share * len(genes))]
    return query[:, ~query.var_names.isin(gone)].copy()


def mixed_depth(query: AnnData) -> AnnData:
    """Half of the query's cells with a sixth of their counts, the others as they are."""
    import anndata

    half = np.random.default_rng(0).random(query.n_obs) < 0.5
    return anndata.concat([query[~half], thinned(query[half].copy(), SHALLOW)])


def ambient(query: AnnData, share: float) -> AnnData:
    """A share of every cell's counts replaced by those of the mean cell: ambient RNA."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    counts = query.X.toarray().astype(np.int64)
    kept = rng.binomial(counts, 1 - share)
    profile = counts.sum(axis=0) / counts.sum()
    lost = counts.sum(axis=1) - kept.sum(axis=1)
    out = query.copy()
    out.X = sparse.csr_matrix((kept + rng.poisson(lost[:, None] * profile)).astype(np.float32))
    return out


# What is done to a query: its name, and the query's new cells from the old ones and the names of the reference's genes.
CHANGES: dict[str, Callable[[AnnData, np.ndarray], AnnData]] = {
    "": lambda query, genes: query,
    "a sixth of the counts": lambda query, genes: thinned(query, SHALLOW),
    "mixed depth": lambda query, genes: mixed_depth(query),
    "45 % of genes gone": lambda query, genes: without_genes(query, 0.45, genes),
    "30 % ambient": lambda query, genes: ambient(query, 0.3),
}

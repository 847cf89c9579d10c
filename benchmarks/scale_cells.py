"""The generated references and files of cells of ``scale.py``: the sizes of real ones, all of it seeded.

A file holds 20,000 genes, 3,000 of which are the reference's: about 600 counts stored of these and 1,000 of the others in each cell,
gzip-compressed as cell atlases publish them. Counts come from ``scgraft.testing`` (random weights), thinned to the depth of real cells.
Twenty thousand cells differ; larger files repeat these under other names. References of more than 6,000 cells repeat those, each time
elsewhere by a tenth of their spread; their number of batches and labels grows as in published ones.
"""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

GENES, OTHERS, OF_OTHERS = (
    3_000,
    17_000,
    1_000,
)  # in the reference, beside them in the file, and stored of these in a cell
DEPTH = 0.03  # of the 30,000 counts that a generated cell has: as a cell of droplets has in 3,000 variable genes
FEW = TinyConfig(
    n_genes=GENES, n_cells=6_000, n_hidden=128, n_latent=10, encode_covariates=True, minified="latent_posterior_parameters"
)  # fmt: skip
SIZES = {20_000: (6, 20), 100_000: (20, 40), 600_000: (100, 60), 2_000_000: (500, 60)}  # batches and labels, by cells
BATCHES = ("lab 1", "lab 2", "lab 3", "lab 4")
FIRST, BLOCK, CHUNK = 20_000, 5_000, 1 << 16


def config_of(n: int) -> TinyConfig:
    """The model of a reference of n cells."""
    batches, labels = SIZES.get(n, (6, 20))
    return replace(
        FEW,
        batches=tuple(f"b{i:03d}" for i in range(batches)),
        labels=tuple(f"type {i + 1:02d}" for i in range(labels)),
    )


def write_reference(folder: Path, n: int) -> None:
    """A reference of n cells: 6,000, again and again."""
    import anndata

    write_hub_folder(folder, config_of(n))
    path = folder / "adata.h5ad"
    few = anndata.read_h5ad(path)
    at, rng = np.arange(n) % few.n_obs, np.random.default_rng(0)
    obs = few.obs.iloc[at].set_axis([f"cell{i}" for i in range(n)], axis=0)
    obs["observed_lib_size"] = np.round(DEPTH * obs["observed_lib_size"])
    many = anndata.AnnData(sparse.csr_matrix((n, few.n_vars), dtype=np.float32), obs=obs, var=few.var, uns=few.uns)
    for key, values in few.obsm.items():
        spread = 0.1 * values.std(axis=0) if "qzv" not in key else 0
        many.obsm[key] = (values[at] + spread * rng.standard_normal((n, values.shape[1]))).astype(np.float32)
    many.write_h5ad(path)


def write_cells(path: Path, n: int) -> None:
    """Cells in an .h5ad: 20,000 that are drawn, block by block, or the cells of that file again and again."""
    part, first = path.with_suffix(".part"), path.with_name(f"query-{FIRST}.h5ad")
    if n != FIRST and not first.exists():
        write_cells(first, FIRST)
    with h5py.File(part, "w") as file:
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n, GENES + OTHERS]})
        for name, kind in (("data", np.float32), ("indices", np.int32)):
            matrix.create_dataset(
                name, (0,), kind, maxshape=(None,), chunks=(CHUNK,), compression="gzip", compression_opts=1
            )
        if n == FIRST:
            ends, batch = _draw(matrix)
        else:
            with h5py.File(first) as other:
                ends, batch = _repeat(other, matrix, n)
        matrix["indptr"] = ends
        names = pd.Index([f"cell {i}" for i in range(n)])
        write_elem(file, "obs", pd.DataFrame({"batch": pd.Categorical.from_codes(batch, list(BATCHES))}, index=names))
        names = [f"g{i:04d}" for i in range(GENES)] + [f"other {i:05d}" for i in range(OTHERS)]
        write_elem(file, "var", pd.DataFrame(index=pd.Index(names)))
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    part.rename(path)


def _draw(matrix: h5py.Group) -> tuple[np.ndarray, np.ndarray]:
    """Draw the first cells: where each begins and ends, (n + 1,), and its batch. Each block fills whole chunks."""
    ends, batch = [np.zeros(1, np.int64)], []
    for seed in range(FIRST // BLOCK):
        cells = tiny_query(config_of(20_000), n_cells=BLOCK, batches=BATCHES, seed=seed + 1)
        rng = np.random.default_rng([seed, 7])
        own = cells.X.copy()
        own.data = rng.binomial(own.data.astype(np.int64), DEPTH).astype(np.float32)
        own.eliminate_zeros()
        others = _others(rng, BLOCK * OF_OTHERS - (own.nnz + BLOCK * OF_OTHERS) % CHUNK)
        block = sparse.hstack([own, others], format="csr", dtype=np.float32)
        block.sort_indices()
        for name in ("data", "indices"):
            begin = len(matrix[name])
            matrix[name].resize((begin + block.nnz,))
            matrix[name][begin:] = getattr(block, name)
        ends.append(block.indptr[1:].astype(np.int64) + ends[-1][-1])
        batch.append(pd.Index(BATCHES).get_indexer(cells.obs["batch"]))
    return np.concatenate(ends), np.concatenate(batch)


def _repeat(first: h5py.File, matrix: h5py.Group, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of a file until there are n; chunks are copied as they are."""
    own, code = first["X/indptr"][1:], first["obs/batch/codes"][:]
    times, size = -(-n // len(own)), int(own[-1])
    ends = np.concatenate([[0], *(own + i * size for i in range(times))])[: n + 1].astype(np.int64)
    for name in ("data", "indices"):
        source = first["X"][name]
        matrix[name].resize((times * size,))
        for at in range(0, size, CHUNK):
            packed = source.id.read_direct_chunk((at,))[1]
            for i in range(times):
                matrix[name].id.write_direct_chunk((i * size + at,), packed)
        matrix[name].resize((int(ends[-1]),))
    return ends, np.tile(code, times)[:n]


def _others(rng: np.random.Generator, wanted: int) -> sparse.csr_matrix:
    """A small count in `wanted` places of (BLOCK, OTHERS), drawn evenly."""
    at = np.unique(rng.integers(0, BLOCK * OTHERS, int(1.1 * wanted)))
    at = np.sort(rng.permutation(at)[:wanted])
    counts = (1 + rng.poisson(0.4, wanted)).astype(np.float32)
    return sparse.csr_matrix((counts, (at // OTHERS, at % OTHERS)), shape=(BLOCK, OTHERS))

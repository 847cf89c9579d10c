"""Cells drawn from the reference's own model: stored posterior -> latent -> decoder -> raw counts.

A minified reference holds no counts, but its posterior and its decoder say what its cells looked like. Generated cells
stand for the reference wherever counts are needed: to train a classifier on genes, to hold a batch out, to ask what
missing genes cost. They are as good as the model: cells that the model describes badly are generated badly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.align import align
from scgraft.errors import QueryError
from scgraft.model import build, pick_device
from scgraft.nn.vae import Cells
from scgraft.products import fast_products
from scgraft.values import BATCH, Alignment, Query, Reference, level_name

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix

    from scgraft.nn.scanvae import Scanvae
    from scgraft.nn.vae import Expression, Vae

BLOCK = 512
NOMINAL_LIBRARY = 3000.0
STORED_COUNTS = "stored counts"


def reference_codes(reference: Reference) -> np.ndarray:
    """Codes (n, 1 + c), int32, of the reference cells' batch and covariates; a column that is not stored is level 0."""
    assert reference.latent is not None
    schema, n = reference.schema, len(reference.latent.mean)
    keys = [schema.batch_key, *(c.key for c in schema.categorical)]
    columns = []
    for key, levels in zip(keys, schema.levels.values(), strict=True):
        position = {level: code for code, level in enumerate(levels)}
        if key is None or reference.obs is None or key not in reference.obs:
            columns.append(np.zeros(n, np.int32))
            continue
        values = [position.get(level_name(v), 0) for v in reference.obs[key].tolist()]
        columns.append(np.array(values, np.int32))
    return np.stack(columns, axis=1)


def library_sizes(reference: Reference) -> np.ndarray:
    """Library size (n,), float32, of the reference cells: as stored, else a nominal 3000 counts."""
    assert reference.latent is not None
    n = len(reference.latent.mean)
    if reference.library is None:
        return np.full(n, NOMINAL_LIBRARY, np.float32)
    return np.maximum(np.asarray(reference.library, np.float32).ravel(), 1.0)


def _continuous(reference: Reference) -> np.ndarray:
    assert reference.latent is not None
    columns = [
        np.zeros(len(reference.latent.mean), np.float32)
        if reference.obs is None or key not in reference.obs
        else np.nan_to_num(np.asarray(reference.obs[key], np.float32))
        for key in reference.schema.continuous
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((len(reference.latent.mean), 0), np.float32)


def _size_factors(reference: Reference, library: np.ndarray) -> np.ndarray | None:
    key = reference.schema.size_factor_key
    if key is None:
        return None
    if reference.obs is not None and key in reference.obs:
        return np.maximum(np.array(reference.obs[key], np.float32), 1e-6)
    return np.maximum(library / library.mean(), 1e-6).astype(np.float32)


def reference_cells(reference: Reference, index: np.ndarray, *, seed: int = 0) -> Query:
    """Cells of the reference with raw counts: the stored ones where the repository holds counts, else generated.

    Parameters
    ----------
    reference, index, seed
        As for :func:`generate`. Nothing is random where counts are stored.
    """
    stored = stored_counts(reference, index)
    if stored is None:
        return generate(reference, index, seed=seed)
    base = _skeleton(reference, index, _size_factors(reference, library_sizes(reference)))
    return replace(base, counts=stored, alignment=replace(base.alignment, counts_from=STORED_COUNTS))


def stored_counts(reference: Reference, index: np.ndarray) -> csr_matrix | None:
    """Raw counts (m, G) of reference cells as the repository stores them; None where it holds none."""
    import anndata

    if reference.adata_path is None or reference.minified == "latent_posterior_parameters" or not len(index):
        return None
    assert reference.latent is not None
    adata = anndata.read_h5ad(reference.adata_path, backed="r")
    try:
        used, inverse = np.unique(index, return_inverse=True)
        rows = adata.obs_names.astype(str).get_indexer(reference.latent.cells[used])
        order = np.argsort(rows)
        if rows.min() < 0:
            return None
        query = align(adata[rows[order]].to_memory(), reference, batch_key=reference.schema.batch_key)
    except QueryError:
        return None
    finally:
        adata.file.close()
    return query.counts[np.argsort(order)][inverse]


def generate(reference: Reference, index: np.ndarray, *, seed: int = 0, nominal: float | None = None) -> Query:
    """Draw raw counts of reference cells from their stored posterior.

    Parameters
    ----------
    reference
        With a latent.
    index
        Cells of the reference to draw, shape (m,); a cell may occur more than once.
    seed
        Random are the draw from the posterior and the counts given the decoder's output.
    nominal
        Library size of every cell; None takes each cell's own.

    Returns
    -------
    Query
        Counts (m, G) CSR float32 in the reference's genes, batches and covariates of the cells drawn. A cell that came
        out empty gets one count of its most expressed gene.
    """
    assert reference.latent is not None
    rng = np.random.default_rng(seed)
    latent, library = reference.latent, library_sizes(reference)
    if nominal is not None:
        library = np.full_like(library, nominal)
    factors = _size_factors(reference, library)
    mean, variance = latent.mean[index], latent.variance[index]
    z = mean + np.sqrt(variance) * rng.standard_normal(mean.shape)
    base = _skeleton(reference, index, factors)
    counts = _draw(reference, base, z.astype(np.float32), library[index], rng)
    return replace(base, counts=counts)


def _skeleton(reference: Reference, index: np.ndarray, factors: np.ndarray | None) -> Query:
    """A query of reference cells without their counts."""
    from scipy.sparse import csr_matrix

    assert reference.latent is not None
    schema, codes = reference.schema, reference_codes(reference)[index]
    levels, n_genes = dict(schema.levels), len(schema.genes)
    names, number = np.unique(codes[:, 0], return_counts=True)
    used = [levels[BATCH][code] for code in names]
    alignment = Alignment(
        counts_from="generated from the stored posterior",
        n_cells=len(index),
        n_genes=n_genes,
        n_found=n_genes,
        found_weight=1.0,
        matched_by={},
        missing=(),
        summed={},
        n_unused=0,
        batch_key=None,
        new_levels={},
        known_batches=tuple(used),
        cells_per_batch=dict(zip(used, number.tolist(), strict=True)),
    )
    return Query(
        counts=csr_matrix((len(index), n_genes), dtype=np.float32),
        codes=codes,
        levels=levels,
        continuous=_continuous(reference)[index],
        cells=np.array([f"{reference.latent.cells[i]}#{j}" for j, i in enumerate(index)], dtype=str),
        size_factor=None if factors is None else factors[index],
        label_codes=None,
        alignment=alignment,
    )


def _draw(
    reference: Reference, base: Query, z: np.ndarray, library: np.ndarray, rng: np.random.Generator
) -> csr_matrix:
    from scipy import sparse

    model, parts = build(reference, pick_device("cpu")), []
    for start in range(0, len(z), BLOCK):
        rows = slice(start, start + BLOCK)
        counts = _sample(decode_block(model, base, z, library, rows), rng, reference.hyper.gene_likelihood)
        parts.append(sparse.csr_matrix(counts))
    return sparse.vstack(parts, format="csr") if parts else base.counts


def decode_block(model: Vae | Scanvae, base: Query, z: np.ndarray, library: np.ndarray, rows: slice) -> Expression:
    """The decoder's output for a block of cells with latent `z` (n, d) and library size (n,), reference batches only."""
    import torch

    with torch.inference_mode(), fast_products(exact=True):
        cells = as_cells(base, library, rows)
        return model.decode(model.latent(torch.as_tensor(z[rows])), cells.library, cells, {})


def as_cells(base: Query, library: np.ndarray, rows: slice) -> Cells:
    """Cells of a query as the decoder takes them."""
    import torch

    def move(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array, np.float32))

    n = len(library[rows])
    return Cells(
        product=torch.zeros(n, 0),
        codes=torch.as_tensor(base.codes[rows].astype(np.int64)),
        continuous=move(base.continuous[rows]),
        library=move(np.log(library[rows])[:, None]),
        size_factor=None if base.size_factor is None else move(base.size_factor[rows][:, None]),
    )


def _sample(expression: Expression, rng: np.random.Generator, likelihood: str) -> np.ndarray:
    rate = np.maximum(expression.rate.numpy().astype(np.float64), 0.0)
    if likelihood == "normal":
        counts = np.rint(rate)
    elif likelihood == "poisson" or expression.theta is None:
        counts = rng.poisson(rate)
    else:
        theta = np.maximum(expression.theta.numpy().astype(np.float64), 1e-6)
        counts = rng.poisson(np.minimum(rng.gamma(np.broadcast_to(theta, rate.shape)) * (rate / theta), 1e9))
    if expression.zi_logits is not None and likelihood == "zinb":
        inflated = 1 / (1 + np.exp(-expression.zi_logits.numpy().astype(np.float64)))
        counts = np.where(rng.random(rate.shape) < inflated, 0, counts)
    empty = counts.sum(axis=1) == 0
    counts[empty, rate[empty].argmax(axis=1)] = 1
    return counts.astype(np.float32)

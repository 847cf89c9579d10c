"""Cells drawn from the reference's own model: stored posterior -> latent -> decoder -> raw counts.

A minified reference holds no counts, but its posterior and its decoder say what its cells looked like. Generated cells
stand for the reference wherever counts are needed: to train a classifier on genes, to hold a batch out, to ask what
missing genes cost. They are as good as the model: cells that the model describes badly are generated badly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scgraft.expression.draws import draw_protein_counts, draw_raw_counts
from scgraft.model.build import build, inputs, pick_device
from scgraft.numerics.products import fast_products
from scgraft.progress import step
from scgraft.reference.cells import continuous_covariates, library_sizes, reference_codes, size_factors
from scgraft.reference.counts import STORED_COUNTS, stored_inputs
from scgraft.values.blocks import PROTEINS, BlockCounts
from scgraft.values.names import BATCH
from scgraft.values.query import Alignment, AlignOptions, Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scgraft.model.totalvi import Totalvi


GENERATED_COUNTS = "generated from the stored posterior"  # where the counts of such cells are from, in words
BLOCK = 512  # cells decoded at a time: 3,000 genes of them are 6 MB; chosen for memory, the speed was not measured


def counted_cells(reference: Reference, index: np.ndarray, *, seed: int = 0) -> Query:
    """Cells of the reference with raw counts: the stored ones where the repository holds counts, else generated.

    Parameters
    ----------
    reference, index, seed
        As for :func:`generate`. Nothing is random where counts are stored.
    """
    stored = stored_inputs(reference, index)
    if stored is None:
        return generate(reference, index, seed=seed)
    base = _skeleton(reference, index)
    return replace(
        base, counts=stored[0], blocks=stored[1], alignment=replace(base.alignment, counts_from=STORED_COUNTS)
    )


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
        Library size of every cell; None takes each cell's own, and so does PEAKVI, whose depth is no number of counts.

    Returns
    -------
    Query
        Counts (m, G) CSR float32 in the reference's genes, batches and covariates of the cells drawn. A cell that came
        out empty gets one count of its most expressed gene.

    Notes
    -----
    The model works on the CPU, whatever the device of the other steps: the cells that are drawn are the same on every machine.
    """
    assert reference.latent is not None
    rng = np.random.default_rng(seed)
    latent, library = reference.latent, library_sizes(reference)
    if nominal is not None and reference.hyper.gene_likelihood != "bernoulli" and library.ndim == 1:
        library = np.full_like(library, nominal)
    mean, variance = latent.mean[index], latent.variance[index]
    z = mean + np.sqrt(variance) * rng.standard_normal(mean.shape)
    base = _skeleton(reference, index)
    counts, blocks = _draw(reference, base, z.astype(np.float32), library[index], rng)
    return replace(base, counts=counts, blocks=blocks)


def _skeleton(reference: Reference, index: np.ndarray) -> Query:
    """A query of reference cells without their counts."""
    from scipy.sparse import csr_matrix

    assert reference.latent is not None
    schema, codes, factors = reference.schema, reference_codes(reference)[index], size_factors(reference)
    levels, n_genes = dict(schema.levels), len(schema.genes)
    names, number = np.unique(codes[:, 0], return_counts=True)
    used = [levels[BATCH][code] for code in names]
    alignment = Alignment(
        counts_from=GENERATED_COUNTS,
        n_cells=len(index),
        n_genes=n_genes,
        n_found=n_genes,
        found_weight=1.0,
        matched_by={},
        missing=(),
        summed={},
        n_unused=0,
        options=AlignOptions(),
        new_levels={},
        known_batches=tuple(used),
        cells_per_batch=dict(zip(used, number.tolist(), strict=True)),
    )
    return Query(
        counts=csr_matrix((len(index), n_genes), dtype=np.float32),
        codes=codes,
        levels=levels,
        continuous=continuous_covariates(reference)[index],
        cells=np.array([f"{reference.latent.cells[i]}#{j}" for j, i in enumerate(index)], dtype=str),
        size_factor=None if factors is None else factors[index],
        label_codes=None,
        alignment=alignment,
    )


def _draw(
    reference: Reference, base: Query, z: np.ndarray, library: np.ndarray, rng: np.random.Generator
) -> tuple[csr_matrix, dict[str, BlockCounts]]:
    """Counts (m, G) of the cells of `base` at latents `z` (m, d) and library sizes (m,), and of their proteins, if any."""
    import torch
    from scipy import sparse

    device = pick_device("cpu")
    model, parts, proteins = build(reference, device), [], list[Any]()
    of_proteins = cast("Totalvi", model) if reference.schema.blocks else None
    with step("generating cells of the reference", len(z), "cell") as advance:
        for start in range(0, len(z), BLOCK):
            rows = slice(start, min(start + BLOCK, len(z)))
            with torch.inference_mode(), fast_products(exact=True):
                factors = None if base.size_factor is None else base.size_factor[rows]
                cells = inputs(
                    base.codes[rows], base.continuous[rows], library[rows], size_factor=factors, device=device
                )
                sample = model.latent(torch.as_tensor(z[rows]))
                expression = model.decode(sample, cells.library, cells, {})
                own = None if of_proteins is None else of_proteins.decode_proteins(sample, cells, {})
            parts.append(_sparse(draw_raw_counts(reference.hyper.gene_likelihood, expression, rng)))
            if own is not None:
                proteins.append(sparse.csr_matrix(draw_protein_counts(own, rng)))
            advance(rows.stop - rows.start)
    if not parts:
        return base.counts, dict(base.blocks)
    blocks = {}
    if proteins:
        drawn = sparse.vstack(proteins, format="csr")
        blocks[PROTEINS] = BlockCounts(drawn, np.ones(drawn.shape, bool))
    return sparse.vstack(parts, format="csr"), blocks


def _sparse(counts: np.ndarray) -> csr_matrix:
    """Dense counts (n, G), mostly zeros, as CSR: scipy's own way, by coordinates, takes five times as long."""
    from scipy import sparse

    n, width = counts.shape
    there = counts != 0
    at, number = np.flatnonzero(there), there.sum(axis=1)
    indices = at.astype(np.int32) - np.repeat(np.arange(n, dtype=np.int32) * width, number)
    ends = np.concatenate([[0], np.cumsum(number)]).astype(np.int32)
    return sparse.csr_matrix((counts.ravel()[at], indices, ends), shape=counts.shape)

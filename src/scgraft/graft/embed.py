"""Reference + Graft + Query -> Latent: posterior mean and variance of each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from scgraft.graft.levels import check_graft, level_codes
from scgraft.model.build import build, embed_cells, graft_rows, make_cells, pick_device, take_cells
from scgraft.progress import step
from scgraft.values.graft import Graft
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

if TYPE_CHECKING:
    import torch

    from scgraft.model.protocol import Model
    from scgraft.model.vae import Cells

BLOCK = 2048  # cells: what is kept per cell is its latent only, and the block's activations stay in the cache


def embed(reference: Reference, query: Query, graft: Graft | None = None, *, device: str = "auto") -> Latent:
    """Posterior of the query's cells in the reference's latent space.

    Parameters
    ----------
    reference
        The reference.
    query
        Aligned cells (raw UMI counts), from :func:`scgraft.align`.
    graft
        New columns for the query's new batches; None when it has only batches of the reference.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    Latent
        Mean and variance, each (n, d) float32. Nothing is random.

    Raises
    ------
    UnknownBatch
        A batch or level that neither the reference nor the graft knows.
    BaseMismatch
        The graft was made for another reference.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> latent = scgraft.embed(reference, query, graft)
    >>> latent.mean.shape, str(latent.cells[0])
    ((40, 4), 'query0')
    """
    n = len(query.cells)
    mean = np.empty((n, reference.hyper.n_latent), np.float32)
    variance = np.empty_like(mean)
    with step("embedding cells", n, "cell") as advance:
        for block, model, cells, rows in _blocks(reference, query, graft, device):
            mean[block], variance[block] = embed_cells(model, cells, rows)
            advance(block.stop - block.start)
    return Latent(mean, variance, query.cells)


def observed_library(
    reference: Reference, query: Query, graft: Graft | None = None, *, device: str = "auto"
) -> np.ndarray:
    """What multiplies the decoder's output for each cell, (n,) float32: its counts, or PEAKVI's depth in [0, 1].

    PEAKVI reads the depth from the counts with an encoder of its own, so it takes the same arguments as :func:`embed`. MULTIVI reads
    the library of its genes and the depth of its regions, (n, 2); they are 0 where a cell has no counts of them.
    """
    n_regions = reference.schema.n_regions
    if reference.hyper.gene_likelihood != "bernoulli" and not n_regions:
        return np.asarray(query.counts.sum(axis=1), dtype=np.float32).ravel()
    found = np.empty((len(query.cells), 2 if n_regions else 1), np.float32)
    for block, model, cells, rows in _blocks(reference, query, graft, device):
        found[block] = model.library(cells, rows).exp().float().cpu().numpy()
    return found if n_regions else found.ravel()


def _blocks(
    reference: Reference, query: Query, graft: Graft | None, device: str
) -> Iterator[tuple[slice, Model, Cells, Mapping[str, torch.Tensor]]]:
    """The model with the graft's rows and the query's cells, block by block."""
    check_graft(reference, graft)
    where = pick_device(device)
    codes = level_codes(query, reference.schema, {} if graft is None else graft.levels)
    model = build(reference, where)
    rows, n = graft_rows(graft, where), len(query.cells)
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        yield block, model, make_cells(model, take_cells(query, block), codes[block], where), rows

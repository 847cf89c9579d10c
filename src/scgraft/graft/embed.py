"""Reference + Graft + Query -> Latent: posterior mean and variance of each cell."""

from __future__ import annotations

import numpy as np

from scgraft.graft.levels import check_base, level_codes
from scgraft.model.build import build, embed_cells, graft_rows, make_cells, pick_device, take_cells
from scgraft.values.graft import Graft
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

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
    """
    check_base(reference, graft)
    where = pick_device(device)
    codes = level_codes(query, reference.schema, {} if graft is None else graft.levels)
    model = build(reference, where)
    rows, n = graft_rows(graft, where), len(query.cells)
    mean = np.empty((n, reference.hyper.n_latent), np.float32)
    variance = np.empty_like(mean)
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        cells = make_cells(model, take_cells(query, block), codes[block], where)
        mean[block], variance[block] = embed_cells(model, cells, rows)
    return Latent(mean, variance, query.cells)

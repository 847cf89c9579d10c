"""Surface proteins of cells that were mapped onto a reference of CITE-seq, measured there or not.

Two estimates that do not depend on each other: the mean of the log counts of the nearest reference cells, whose proteins were measured, and what the
model's decoder expects. On the one pair of real data sets at hand the neighbours were nearer to what was measured (docs/families.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgraft.errors import UnsupportedModel
from scgraft.expression.cells import LatentCells
from scgraft.expression.decode import decoder_inputs
from scgraft.graft.levels import check_graft
from scgraft.model.build import build, graft_rows, pick_device
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.products import fast_products
from scgraft.numerics.sealed import seal_fields
from scgraft.numerics.tensors import as_tensor
from scgraft.reference.cells import reference_codes
from scgraft.reference.counts import stored_inputs
from scgraft.values.blocks import PROTEINS
from scgraft.values.graft import Graft
from scgraft.values.reference import Reference
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    import pandas as pd

    from scgraft.model.totalvi import Totalvi

NEIGHBOURS = 15  # as the numbers of docs/families.md were made with; chosen by eye
BLOCK = 512  # cells, as in the decoder of the genes


@dataclass(frozen=True)
class ProteinEstimate:
    """Surface proteins of cells, each (n, P) float32, columns in the order of `names`.

    Parameters
    ----------
    cells, names
        Names of the cells (n,) and of the proteins (P,).
    neighbours
        Typical counts of the nearest reference cells that carry the protein: the mean of log1p(counts), taken back. NaN where none does,
        None where the reference stores no counts.
    spread
        Standard deviation of log1p of these counts over the same cells: how unsure the mean is. None as `neighbours`.
    foreground
        Probability, by the decoder, that a count is more than background.
    denoised
        Counts of the foreground that the decoder expects: the background is taken off, as scvi-tools does.
    """

    cells: np.ndarray
    names: tuple[str, ...]
    neighbours: np.ndarray | None
    spread: np.ndarray | None
    foreground: np.ndarray
    denoised: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)

    def to_frame(self) -> pd.DataFrame:
        """The neighbours' mean, or what the decoder expects where there is none: one row a cell, one column a protein."""
        import pandas as pd

        values = self.denoised if self.neighbours is None else self.neighbours
        return pd.DataFrame(values, index=pd.Index(self.cells), columns=pd.Index(self.names))

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def proteins(
    reference: Reference, cells: LatentCells, graft: Graft | None = None, *, device: str = "auto"
) -> ProteinEstimate:
    """Estimate the surface proteins of cells, for example of a query whose RNA alone was measured.

    Parameters
    ----------
    reference
        A TOTALVI reference, or a MULTIVI reference with proteins.
    cells
        From :func:`scgraft.query_cells` or :func:`scgraft.reference_cells`; no count is needed.
    graft
        The graft of the query's batches; not needed for reference cells.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    ProteinEstimate
        Nothing is random: the decoder is given the posterior mean, and the mean of the background.

    Raises
    ------
    UnsupportedModel
        The reference has no proteins.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> scgraft.proteins(reference, scgraft.reference_cells(reference))
    Traceback (most recent call last):
    scgraft.errors.UnsupportedModel: A SCVI reference has no proteins. Choose a TOTALVI reference, which was trained on CITE-seq.
    """
    if PROTEINS not in [block.name for block in reference.schema.blocks]:
        raise UnsupportedModel(
            f"A {reference.base.family} reference has no proteins. Choose a TOTALVI reference, which was trained on CITE-seq."
        )
    check_graft(reference, graft)
    where = pick_device(device)
    model: Totalvi = build(reference, where)  # type: ignore[assignment]
    rows, n = graft_rows(graft, where), len(cells)
    names = reference.schema.block(PROTEINS).features
    foreground, denoised = np.empty((n, len(names)), np.float32), np.empty((n, len(names)), np.float32)
    with torch.inference_mode(), fast_products(where, exact=True):
        for start in range(0, n, BLOCK):
            block = slice(start, min(start + BLOCK, n))
            part = cells.take(block)
            z = as_tensor(part.latent.mean).to(where)
            p = model.decode_proteins(model.latent(z), decoder_inputs(part, where), rows)
            share = torch.sigmoid(-p.mixing)
            foreground[block] = share.cpu().numpy()
            denoised[block] = (share * p.fore * torch.exp(p.alpha + p.beta**2 / 2)).cpu().numpy()
    mean, spread = _of_neighbours(reference, cells)
    return ProteinEstimate(cells.latent.cells, names, mean, spread, foreground, denoised)


def _of_neighbours(reference: Reference, cells: LatentCells) -> tuple[np.ndarray | None, np.ndarray | None]:
    latent = reference.latent
    stored = None if latent is None else stored_inputs(reference, np.arange(len(latent.mean)))
    if latent is None or stored is None:
        return None, None
    block = stored[1][PROTEINS]
    counts, measured = block.counts.toarray(), block.measured & _stained(reference)
    mean = np.full((len(cells), counts.shape[1]), np.nan, np.float32)
    spread = mean.copy()
    # Proteins that the same cells carry have the same neighbours: those of one panel, as a rule.
    patterns, of = np.unique(measured, axis=1, return_inverse=True)
    for i, there in enumerate(patterns.T):
        if not there.any():
            continue
        own, known = np.flatnonzero(of.ravel() == i), np.flatnonzero(there)
        found = nearest(latent.mean[known], cells.latent.mean, k=min(NEIGHBOURS, len(known))).indices
        near = counts[np.ix_(known, own)][found]
        # Counts of one protein spread over decades: a mean of counts is that of the few stained cells among the neighbours.
        logs = np.log1p(near.astype(np.float64))
        mean[:, own], spread[:, own] = np.expm1(logs.mean(axis=1)), logs.std(axis=1)
    return mean, spread


def _stained(reference: Reference) -> np.ndarray:
    """Which proteins the batch (or panel) of each reference cell measured, (n, P) bool."""
    panel = reference.schema.block(PROTEINS).panel
    code = reference_codes(reference)[:, list(reference.schema.levels).index(panel)]
    mask: np.ndarray = reference.attributes["protein_mask"]
    return mask[code]

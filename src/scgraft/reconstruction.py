"""What the model says of a cell's counts: residuals, and in the same units how far its type is from other types."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scgraft.levels import level_codes
from scgraft.model import build, graft_rows, make_cells, pick_device
from scgraft.neighbors import Neighbours
from scgraft.transfer import neighbour_vote
from scgraft.values import Graft, Latent, Query, Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from scgraft.nn.vae import Expression

BLOCK = 512
LARGEST = 10.0
NEAR_TYPES = 3

Decode = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def decoder(reference: Reference, query: Query, graft: Graft | None) -> Decode:
    """Mean and variance (m, G) of the counts at latents (m, d), in the batch and at the depth of given query cells (m,)."""
    import torch

    device = pick_device("auto")
    model = build(reference, device)
    codes = level_codes(query, reference.schema, {} if graft is None else graft.levels)
    cells, rows = make_cells(model, query, codes, device), graft_rows(graft, device)

    def decode(points: np.ndarray, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            own = cells.take(torch.as_tensor(like, device=device))
            z = torch.as_tensor(np.asarray(points, np.float32)).to(device)
            expression = model.decode(model.latent(z), own.library, own, rows)
            mean, variance = _moments(expression, reference.hyper.gene_likelihood)
            return mean.cpu().numpy(), variance.cpu().numpy()

    return decode


def residuals(decode: Decode, counts: csr_matrix, points: np.ndarray) -> np.ndarray:
    """Pearson residuals (n, G), float32, of counts (n, G) under the model at latents (n, d), cut at 10.

    The columns of the graft are used, so what is a shift of the whole batch is explained.
    """
    out = np.empty(counts.shape, np.float32)
    for start in range(0, len(out), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(out)))
        mean, variance = decode(points[part], part)
        own = (counts[part].toarray() - mean) / np.sqrt(variance + 1e-9)
        out[part] = np.clip(own, -LARGEST, LARGEST)
    return out


def type_distances(
    decode: Decode,
    reference: Reference,
    latent: Latent,
    batch: np.ndarray,
    codes: np.ndarray,
    found: Neighbours,
    *,
    present: np.ndarray | None = None,
) -> np.ndarray:
    """How far each cell's type is from the other types, in the units of squared residuals, (n,) float32.

    A type is what the decoder expects at the mean latent of its reference cells, in the query cell's batch and at its depth.
    The distance is the mean over genes of the squared difference over the variance that the model gives the cell. Not the
    nearest type counts, but that which a third of the other types are as near as: were every type cut in two or four, the
    nearest would be the other half, and this one hardly another than before.

    Parameters
    ----------
    decode
        Of the reference and the query's cells, from :func:`decoder`.
    reference, latent
        The reference, and the query's cells in its latent.
    batch
        Code of each query cell's batch, (n,).
    codes
        Class of every reference cell; -1 for none.
    found
        Nearest reference cells of each query cell in the latent: they say which type it has.
    present
        Genes that the query has, (G,) bool; None takes all of them.

    Returns
    -------
    ndarray
        Infinite where there are no two types.
    """
    assert reference.latent is not None
    points, names = reference.latent.mean, np.unique(codes[codes >= 0])
    out = np.full(len(latent.mean), np.inf, np.float32)
    if len(names) < 2:
        return out
    compact = np.where(codes >= 0, np.searchsorted(names, codes), -1)
    own = neighbour_vote(compact, len(names), found).argmax(axis=1)
    centres = np.stack([points[compact == c].mean(axis=0) for c in range(len(names))])
    # Without a depth (values of a normal likelihood) the decoder's output is a profile as it is.
    has_depth = reference.hyper.gene_likelihood != "normal"
    for code in np.unique(batch):
        rows = np.flatnonzero(batch == code)
        profile, _ = decode(centres, np.full(len(names), rows[0]))
        profile = profile / profile.sum(axis=1, keepdims=True) if has_depth else profile
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            mean, variance = decode(latent.mean[part], part)
            weight = (mean.sum(axis=1, keepdims=True) ** 2 if has_depth else 1.0) / (variance + 1e-9)
            out[part] = nearest_third(profile, weight.astype(np.float32), own[part], present)
    return out


def nearest_third(
    profile: np.ndarray, weight: np.ndarray, own: np.ndarray, present: np.ndarray | None = None
) -> np.ndarray:
    """Weighted squared distance (m,) from each cell's own type to that which a third of the others are as near as.

    Parameters
    ----------
    profile
        Of at least two types, (C, G).
    weight
        Of the genes, for each cell, (m, G).
    own
        The cells' types, (m,).
    present
        Genes that count, (G,) bool; None takes all of them.
    """
    kept = np.ones(profile.shape[1], bool) if present is None else present
    profile, weight = profile[:, kept], weight[:, kept]
    place = -(-(len(profile) - 1) // NEAR_TYPES) - 1  # a third of them, and one at least
    out = np.empty(len(own), np.float32)
    for c in np.unique(own):
        others = np.delete(profile, c, axis=0) - profile[c]
        squares = weight[own == c] @ (others**2).T / max(int(kept.sum()), 1)
        out[own == c] = np.partition(squares, place, axis=1)[:, place]
    return out


def _moments(expression: Expression, likelihood: str) -> tuple[Tensor, Tensor]:
    """Mean and variance (n, G) of the counts."""
    import torch

    rate, theta = expression.rate, expression.theta
    if likelihood == "normal":
        assert theta is not None
        return rate, theta**2 * torch.ones_like(rate)
    variance = rate if likelihood == "poisson" or theta is None else rate + rate**2 / theta
    if likelihood != "zinb" or expression.zi_logits is None:
        return rate, variance
    kept = torch.sigmoid(-expression.zi_logits)
    return kept * rate, kept * variance + kept * (1 - kept) * rate**2

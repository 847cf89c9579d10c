"""What the model says of a cell's counts: residuals, and in the same units how far its type is from other types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.graft.levels import level_codes
from scgraft.model.build import build, graft_rows, make_cells, pick_device
from scgraft.numerics.tensors import as_tensor
from scgraft.values.graft import Graft
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from scgraft.model.vae import Expression

BLOCK = 512  # cells decoded at a time: 3,000 genes of them are 6 MB; chosen for memory, the speed was not measured
LARGEST = 10.0  # standard deviations, as scanpy's tutorials cut scaled values; not measured here
Decode = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def decoder(reference: Reference, query: Query, graft: Graft | None, *, device: str = "auto") -> Decode:
    """Mean and variance (m, G) of the counts at latents (m, d), in the batch and at the depth of given query cells (m,)."""
    import torch

    where = pick_device(device)
    model = build(reference, where)
    codes = level_codes(query, reference.schema, {} if graft is None else graft.levels)
    cells, rows = make_cells(model, query, codes, where), graft_rows(graft, where)

    def decode(points: np.ndarray, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            own = cells.take(as_tensor(like).to(where))
            z = as_tensor(np.asarray(points, np.float32)).to(where)
            expression = model.decode(model.latent(z), model.library(own, rows), own, rows)
            mean, variance = _moments(expression, reference.hyper.gene_likelihood)
            return mean.cpu().numpy(), variance.cpu().numpy()

    return decode


def observed(reference: Reference, counts: csr_matrix) -> csr_matrix:
    """Counts (n, G) as the model's likelihood sees them: of regions ones and zeros, whether they were seen at all."""
    of_regions = reference.hyper.gene_likelihood == "bernoulli"
    if not of_regions and not reference.schema.n_regions:
        return counts
    seen = counts.copy()
    of_regions = of_regions | (seen.indices >= len(reference.schema.genes) - reference.schema.n_regions)
    seen.data = np.where(of_regions, seen.data > 0, seen.data).astype(np.float32)
    return seen


def residuals(decode: Decode, counts: csr_matrix, points: np.ndarray) -> np.ndarray:
    """Pearson residuals (n, G), float32, of observed counts (n, G) under the model at latents (n, d), cut at 10.

    The columns of the graft are used, so what is a shift of the whole batch is explained.
    """
    out = np.empty(counts.shape, np.float32)
    for start in range(0, len(out), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(out)))
        mean, variance = decode(points[part], part)
        own = (counts[part].toarray() - mean) / np.sqrt(variance + 1e-9)
        out[part] = np.clip(own, -LARGEST, LARGEST)
    return out


def _moments(expression: Expression, likelihood: str) -> tuple[Tensor, Tensor]:
    """Mean and variance (n, G) of the counts."""
    import torch

    if n := expression.n_regions:
        seen = expression.rate[:, -n:]
        mean, variance = _moments(replace(expression, rate=expression.rate[:, :-n], n_regions=0), likelihood)
        return torch.cat([mean, seen], dim=1), torch.cat([variance, seen * (1 - seen)], dim=1)
    rate, theta = expression.rate, expression.theta
    if likelihood == "bernoulli":
        return rate, rate * (1 - rate)
    if likelihood == "normal":
        assert theta is not None
        return rate, theta**2 * torch.ones_like(rate)
    variance = rate if likelihood == "poisson" or theta is None else rate + rate**2 / theta
    if likelihood != "zinb" or expression.zi_logits is None:
        return rate, variance
    kept = torch.sigmoid(-expression.zi_logits)
    return kept * rate, kept * variance + kept * (1 - kept) * rate**2

"""What the fit minimises: one small pure function for each objective.

``elbo`` is the published objective of scArches' surgery (Lotfollahi et al., Nature Biotechnology 2022,
doi:10.1038/s41587-021-01001-7). ``atlas`` replaces its N(0, I) prior by the aggregate posterior of the reference: the
posteriors of its cells, which minified references store. Aggregate posteriors as priors: Tomczak and Welling, AISTATS
2018 (VampPrior, arXiv:1705.07120).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import ScgraftError
from scgraft.values import Latent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from scgraft.nn.vae import Terms

COMPONENTS = 100
CLUSTERED_CELLS = 20_000


@dataclass(frozen=True)
class Mixture:
    """Mixture of diagonal normals: `weight` (k,), `mean` and `variance` (k, d), float32."""

    weight: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def atlas_mixture(latent: Latent, *, components: int = COMPONENTS, seed: int = 0) -> Mixture:
    """The reference's aggregate posterior as a mixture of a fixed number of components.

    k-means (seeded) on at most 20,000 of the posterior means; each component's variance is the variance of its means
    plus the mean of their stored variances, so that the first two moments are those of the cells.
    """
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(latent.mean))[:CLUSTERED_CELLS]
    mean, variance = latent.mean[chosen].astype(np.float64), latent.variance[chosen].astype(np.float64)
    k = min(components, max(1, len(chosen) // 3))
    start = mean[rng.choice(len(mean), k, replace=False)]
    label = np.zeros(len(mean), np.int64)
    if k > 1:
        with warnings.catch_warnings():  # a cluster that loses all its cells is dropped below
            warnings.simplefilter("ignore", UserWarning)
            _, label = kmeans2(mean, start, minit="matrix", iter=20)
    size = np.bincount(label, minlength=k).astype(np.float64)
    used = size > 0

    def average(values: np.ndarray) -> np.ndarray:
        total = np.zeros((k, values.shape[1]))
        np.add.at(total, label, values)
        return total[used] / size[used, None]

    centre = average(mean)
    spread = np.maximum(average(mean**2) - centre**2, 0) + average(variance)
    return Mixture((size[used] / size.sum()).astype(np.float32), centre.astype(np.float32), spread.astype(np.float32))


def mixture_log_density(sample: Tensor, mixture: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Log-density (n,) of points (n, d) under a mixture given as tensors (log weight, mean, variance).

    The squared distances are expanded, so the cost of a step is two products of (n, d) with (d, k).
    """
    import torch

    log_weight, mean, variance = mixture
    precision = 1 / variance
    distance = (sample**2) @ precision.T - 2 * sample @ (mean * precision).T + (mean**2 * precision).sum(-1)
    constant = log_weight - 0.5 * (torch.log(variance) + np.log(2 * np.pi)).sum(-1)
    return torch.logsumexp(constant - 0.5 * distance, dim=-1)


def mixture_tensors(mixture: Mixture, like: torch.Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A mixture as tensors on the device of `like`."""
    import torch

    log_weight, mean, variance = (
        torch.as_tensor(a).to(like) for a in (np.log(mixture.weight), mixture.mean, mixture.variance)
    )
    return log_weight, mean, variance


Objective = Callable[["Terms", float, "tuple[Tensor, Tensor, Tensor] | None"], "Tensor"]


def elbo(terms: Terms, kl_weight: float, prior: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
    """Negative evidence lower bound of each cell, (n,), in nats, with the model's own prior."""
    return terms.counts + terms.latent + kl_weight * terms.kl + terms.kl_library


def atlas(terms: Terms, kl_weight: float, prior: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
    """Negative evidence lower bound of each cell, (n,), with the reference's aggregate posterior as prior.

    The divergence from a mixture has no closed form: it is estimated by the draw that the likelihood uses.
    """
    from scgraft.nn.likelihoods import log_density

    assert prior is not None
    divergence = log_density(terms.sample, terms.mean, terms.variance) - mixture_log_density(terms.sample, prior)
    return terms.counts + kl_weight * divergence + terms.kl_library


OBJECTIVES: dict[str, Objective] = {"atlas": atlas, "elbo": elbo}


def objective_named(name: str) -> Objective:
    """Objective of that name."""
    if name not in OBJECTIVES:
        raise ScgraftError(f"There is no objective {name!r}; choose one of {', '.join(sorted(OBJECTIVES))}.")
    return OBJECTIVES[name]

"""What the fit minimises: one small pure function for each term.

``elbo`` is the published objective of scArches' surgery (Lotfollahi et al., Nature Biotechnology 2022,
doi:10.1038/s41587-021-01001-7). ``atlas`` replaces its N(0, I) prior by the aggregate posterior of the reference: the
posteriors of its cells, which minified references store. Aggregate posteriors as priors: Tomczak and Welling, AISTATS
2018 (VampPrior, arXiv:1705.07120).

``match`` asks the query's latents to have the distribution of the atlas's, once the atlas has been given the query's
composition: the energy distance (Szekely and Rizzo, J. Stat. Plan. Inference 2013, doi:10.1016/j.jspi.2013.03.018) to
stored latents that are drawn cluster by cluster as often as the query's cells vote for the cluster. Weighting the source
by an estimate of the target's composition: Lipton et al., ICML 2018 (arXiv:1802.03916). A distance between samples in
the place of a likelihood, beside a prior: Cherief-Abdellatif and Alquier, AABI 2020 (arXiv:1909.13339).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
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
CELLS_PER_COMPONENT = 15
CLUSTERED_CELLS = 20_000
MATCH = "match"


@dataclass(frozen=True)
class Mixture:
    """Mixture of diagonal normals: `weight` (k,), `mean` and `variance` (k, d), float32."""

    weight: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Atlas:
    """What the fit knows of the reference's cells: posterior means (m, d), their cluster (m,), and the mixture of all."""

    points: np.ndarray
    label: np.ndarray
    mixture: Mixture


def atlas_of(latent: Latent, *, components: int = COMPONENTS, seed: int = 0) -> Atlas:
    """The reference's aggregate posterior, clustered: at most 20,000 of its cells in at most 100 clusters.

    k-means (seeded), with 15 cells or more for each cluster on average. Each component's variance is the variance of its
    means plus the mean of their stored variances, so that the first two moments are those of the cells.
    """
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(latent.mean))[:CLUSTERED_CELLS]
    mean, variance = latent.mean[chosen].astype(np.float64), latent.variance[chosen].astype(np.float64)
    k = min(components, max(1, len(chosen) // CELLS_PER_COMPONENT))
    start = mean[rng.choice(len(mean), k, replace=False)]
    label = np.zeros(len(mean), np.int64)
    if k > 1:
        with warnings.catch_warnings():  # a cluster that loses all its cells is dropped below
            warnings.simplefilter("ignore", UserWarning)
            _, label = kmeans2(mean, start, minit="matrix", iter=20)
    label = np.unique(label, return_inverse=True)[1]
    size = np.bincount(label).astype(np.float64)

    def average(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(size), values.shape[1]))
        np.add.at(total, label, values)
        return total / size[:, None]

    centre = average(mean)
    spread = np.maximum(average(mean**2) - centre**2, 0) + average(variance)
    weight, centre, spread = (a.astype(np.float32) for a in (size / size.sum(), centre, spread))
    return Atlas(latent.mean[chosen], label, Mixture(weight, centre, spread))


def matched_weights(votes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Probabilities (m,) of the atlas's points under which its clusters are as frequent as the cells vote, (n, k)."""
    share = votes.mean(axis=0) / np.maximum(np.bincount(label, minlength=votes.shape[1]), 1)
    weights = share[label]
    return weights / weights.sum()


def energy_distance(query: Tensor, reference: Tensor) -> Tensor:
    """Energy distance of two samples (n, d) and (m, d), without bias: 0 in the mean where they have one distribution.

    A step costs three tables of distances; each sample needs two points.
    """
    n, m = len(query), len(reference)
    between = _distances(query, reference).mean()
    return (
        2 * between
        - _distances(query, query).sum() / (n * (n - 1))
        - _distances(reference, reference).sum() / (m * (m - 1))
    )


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # A point is at distance 0 of itself, where the square root has no gradient.
    square = ((a[:, None] - b[None]) ** 2).sum(-1)
    return (square + 1e-12).sqrt()


def column_penalty(rows: Mapping[str, Tensor], prior: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Half the squared distance of new columns from the prior's mean in its standard deviations, summed."""
    import torch

    return 0.5 * torch.stack([((rows[n] - mean) ** 2 / variance).sum() for n, (mean, variance) in prior.items()]).sum()


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
    """Objective of that name; ``"match"`` fits by ``"atlas"`` what does not move the latent."""
    if name not in (MATCH, *OBJECTIVES):
        raise ScgraftError(f"There is no objective {name!r}; choose one of {', '.join(sorted([MATCH, *OBJECTIVES]))}.")
    return OBJECTIVES["atlas" if name == MATCH else name]

"""What the fit minimises: one small pure function for each term. docs/objective.md has the formulas in one place.

``elbo``
    The published objective of scArches' surgery (Lotfollahi et al., Nature Biotechnology 2022,
    doi:10.1038/s41587-021-01001-7).
``atlas``
    The same with another prior: N(0, I) is replaced by the average of the posteriors of the reference's cells, which
    minified references store. Such a prior was proposed by Tomczak and Welling, AISTATS 2018 (VampPrior,
    arXiv:1705.07120).
``match``
    Within each cluster of the reference, the query's latents should be distributed as the reference's are. The difference is
    measured by the energy distance (Szekely and Rizzo, J. Stat. Plan. Inference 2013, doi:10.1016/j.jspi.2013.03.018).
    Comparing within clusters makes a query with another composition no different: Korsunsky et al., Nature Methods 2019
    (Harmony, doi:10.1038/s41592-019-0619-0). A distance between samples plus a prior, instead of a likelihood plus a prior:
    Cherief-Abdellatif and Alquier, AABI 2020 (arXiv:1909.13339).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import ScgraftError
from scgraft.numerics.atlas import Mixture
from scgraft.numerics.tensors import as_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from scgraft.model.vae import Terms

# Cells of its stratum that a cell is compared with in a step; the next step draws others. All of them at once took up to ten times
# as long (docs/performance.md).
PARTNERS = 32


@dataclass(frozen=True)
class Pairs:
    """Pairs of cells of one stratum: positions `left` and `right` (P,), weights of their distances `across` and `within` (P,).

    A cell is paired with itself too: with the point that was drawn for it. A cell that is alone in its stratum is in no pair.
    """

    left: Tensor
    right: Tensor
    across: Tensor
    within: Tensor


def pairs_within(stratum: np.ndarray, like: Tensor, *, most: int = PARTNERS) -> Pairs:
    """Pairs of cells (n,) of the same stratum, on the device of `like` and of its type.

    Each cell with itself and those that follow it in its stratum, round the end: all of them, or `most` where there are more.
    """
    order = np.argsort(stratum, kind="stable")
    _, first, size = np.unique(stratum[order], return_index=True, return_counts=True)
    first, size = np.repeat(first, size), np.repeat(size, size)  # of each cell's stratum, in this order
    number = np.where(size > 1, np.minimum(size, most), 0)
    left = np.repeat(np.arange(len(order)), number)
    ahead = np.arange(len(left)) - np.repeat(np.cumsum(number) - number, number)
    right = first[left] + (left - first[left] + ahead) % size[left]
    across, within = 2 / number[left], (ahead > 0) / (number[left] - 1)
    return Pairs(
        *(as_tensor(order[at]).to(like.device) for at in (left, right)),
        *(as_tensor(weight).to(like) for weight in (across, within)),
    )


def stratified_energy(query: Tensor, points: Tensor, pairs: Pairs) -> Tensor:
    """Unbiased energy distance within strata, averaged over the cells, less the term that does not depend on `query`.

    ::

        sum over strata s of  n_s / n * [ 2 * mean |z_i - p_j|  -  mean |z_i - z_k| ]

    where ``z`` are the ``n_s`` latents of the query's cells in stratum ``s``, ``p`` the reference points of that stratum, and
    the second mean is over pairs of different cells.

    Parameters
    ----------
    query
        Latents (n, d).
    points
        Reference points (n, d), one drawn for each cell from its stratum.
    pairs
        Cells of the same stratum, from :func:`pairs_within`.

    Notes
    -----
    A step costs the distances of these pairs. Only cells of one stratum are compared, so a cell is never drawn towards
    another type because the query holds more or fewer of them than the reference.
    """
    import torch

    cell, other = query.index_select(0, pairs.left), query.index_select(0, pairs.right)
    across = pairs.across @ torch.linalg.vector_norm(cell - points.index_select(0, pairs.right), dim=1)
    within = pairs.within @ torch.linalg.vector_norm(cell - other, dim=1)
    return (across - within) / len(query)


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
    log_weight, mean, variance = (
        as_tensor(a).to(like) for a in (np.log(mixture.weight), mixture.mean, mixture.variance)
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
    from scgraft.model.likelihoods import log_density

    assert prior is not None
    divergence = log_density(terms.sample, terms.mean, terms.variance) - mixture_log_density(terms.sample, prior)
    return terms.counts + kl_weight * divergence + terms.kl_library


def reconstruction(terms: Terms, kl_weight: float, prior: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
    """Negative log-likelihood of the counts and the KL of the library size, (n,), in nats.

    These are the terms that columns can change which do not move the latent.
    """
    return terms.counts + terms.kl_library


# "match" fits the columns that move the latent by other means (scgraft.graft.match); this fits the other columns.
OBJECTIVES: dict[str, Objective] = {"atlas": atlas, "elbo": elbo, "match": reconstruction}


def objective_named(name: str) -> Objective:
    """Objective of that name."""
    if name not in OBJECTIVES:
        raise ScgraftError(f"There is no objective {name!r}; choose one of {', '.join(sorted(OBJECTIVES))}.")
    return OBJECTIVES[name]

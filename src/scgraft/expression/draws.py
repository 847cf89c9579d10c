"""Counts drawn from the parameters of their distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from scgraft.model.totalvi import Proteins
from scgraft.model.vae import Expression

# Means up to which negative binomials are drawn by walking up the distribution function, how far, and how many at a time: 65,536 took
# 56 ns for each count (zero-inflated, 86 % zeros), 262,144 and more 41.
WALK, STEPS, PIECE = 16.0, 64, 1 << 18


def draw_counts(likelihood: str, expression: Expression, random: np.random.Generator) -> np.ndarray:
    """Counts (n, G) float32 from the parameters of their distribution; regions beside genes are seen or not."""
    if n := expression.n_regions:
        genes = draw_counts(likelihood, replace(expression, rate=expression.rate[:, :-n], n_regions=0), random)
        return np.hstack(
            [genes, draw_counts("bernoulli", Expression(expression.scale, expression.rate[:, -n:], None, None), random)]
        )
    rate = expression.rate.cpu().numpy()
    if likelihood == "bernoulli":
        return (random.random(rate.shape) < rate).astype(np.float32)
    if likelihood == "poisson":
        return random.poisson(rate).astype(np.float32)
    assert expression.theta is not None
    theta = np.broadcast_to(expression.theta.cpu().numpy(), rate.shape)
    if likelihood == "normal":
        return random.normal(rate, theta).astype(np.float32)
    if likelihood == "nb":
        return draw_negative_binomial(rate, theta, random)
    assert expression.zi_logits is not None
    return draw_negative_binomial(rate, theta, random, torch.sigmoid(expression.zi_logits).cpu().numpy())


def draw_negative_binomial(
    mean: np.ndarray, theta: np.ndarray, random: np.random.Generator, inflation: np.ndarray | None = None
) -> np.ndarray:
    """Counts of negative binomials with means and inverse dispersions of one shape, float32.

    Most counts are zero, and a zero costs one uniform number: small means are drawn by walking up the distribution
    function. Large ones are drawn as Poisson counts with a gamma-distributed rate. Where there is an `inflation`, a count is zero
    with that probability, whatever its mean: the uniform number decides that, too.
    """
    # torch takes no read-only array.
    flat = [
        np.require(np.ravel(part), requirements=["C", "W"]) for part in (mean, theta, inflation) if part is not None
    ]
    counts = np.zeros(flat[0].shape, np.float32)
    for start in range(0, len(counts), PIECE):
        mu, shape, *zeros = (part[start : start + PIECE] for part in flat)
        uniform, drawn = random.random(len(mu), np.float32), counts[start : start + PIECE]
        _walk(mu, shape, uniform, random, drawn, zeros[0] if zeros else None)
        high = np.flatnonzero((mu > WALK) & (uniform >= zeros[0]) if zeros else mu > WALK)
        if len(high):
            gamma = random.standard_gamma(shape[high]) * (mu[high] / shape[high])
            drawn[high] = random.poisson(np.minimum(gamma, 1e8))
    return counts.reshape(mean.shape)


def _walk(
    mean: np.ndarray,
    theta: np.ndarray,
    uniform: np.ndarray,
    random: np.random.Generator,
    counts: np.ndarray,
    inflation: np.ndarray | None,
) -> None:
    """Write the quantiles at `uniform` of negative binomials with small means into `counts`, which is zero."""
    zero = torch.as_tensor(mean / theta).log1p_().mul_(torch.as_tensor(-theta)).exp_().numpy()
    most = zero if inflation is None else inflation + (1 - inflation) * zero
    left = np.flatnonzero((uniform > most) & (mean <= WALK))
    # The digits that single precision lacks; most numbers needed none of them.
    u = uniform[left] + random.random(len(left)) * 2.0**-24
    if inflation is not None:
        u = (u - inflation[left]) / (1 - inflation[left].astype(np.float64))
    mass, shape = zero[left].astype(np.float64), theta[left].astype(np.float64)
    ratio, cumulative, reached = mean[left] / (mean[left] + shape), mass.copy(), np.zeros(len(left))
    for k in range(STEPS):
        beyond = u > cumulative
        n = int(beyond.sum())
        if 2 * n < len(left):
            counts[left] = reached
            left, u, cumulative = left[beyond], u[beyond], cumulative[beyond]
            mass, shape, ratio, reached = mass[beyond], shape[beyond], ratio[beyond], reached[beyond]
            beyond = beyond[beyond]
        if not n:
            return
        reached += beyond
        mass *= (k + shape) / (k + 1) * ratio
        cumulative += mass
    from scipy.special import nbdtrik  # scipy.stats has the same quantiles, and takes a second to import

    counts[left] = reached
    far = u > cumulative
    counts[left[far]] = np.ceil(nbdtrik(np.minimum(u[far], 1 - 1e-15), shape[far], 1 - ratio[far]) - 1e-6)


def draw_raw_counts(likelihood: str, expression: Expression, random: np.random.Generator) -> np.ndarray:
    """Counts (n, G) float32 as a query has them: whole, not negative, and one at least in every cell.

    A cell that came out empty gets one count of its most expressed gene. A model of normally distributed values gives its
    rounded means, as its draws are no counts.
    """
    rate = expression.rate.cpu().numpy()
    counts = (
        np.rint(np.maximum(rate, 0)).astype(np.float32)
        if likelihood == "normal"
        else draw_counts(likelihood, expression, random)
    )
    empty = counts.sum(axis=1) == 0
    counts[empty, rate[empty].argmax(axis=1)] = 1
    return counts


def draw_protein_counts(proteins: Proteins, random: np.random.Generator) -> np.ndarray:
    """Protein counts (n, P) float32: a background for each cell and protein, over which some cells have a foreground."""
    alpha, beta, fore, mixing, efficiency = (
        part.double().cpu().numpy()
        for part in (proteins.alpha, proteins.beta, proteins.fore, proteins.mixing, proteins.efficiency)
    )
    background = efficiency * np.exp(alpha + beta * random.standard_normal(alpha.shape))
    is_foreground = random.random(alpha.shape) < 1 / (1 + np.exp(mixing))
    dispersion = np.broadcast_to(proteins.dispersion.double().cpu().numpy(), alpha.shape)
    return draw_negative_binomial(background * np.where(is_foreground, fore, 1.0), dispersion, random)

"""Counts drawn from the parameters of their distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from scgraft.model.totalvi import Proteins
from scgraft.model.vae import Expression

# Means up to which negative binomials are drawn by walking up the distribution function, and how far.
WALK, STEPS, PIECE = 16.0, 64, 1 << 16


def draw_counts(likelihood: str, expression: Expression, random: np.random.Generator) -> np.ndarray:
    """Counts (n, G) float32 from the parameters of their distribution; regions beside genes are seen or not."""
    if n := expression.n_regions:
        genes = draw_counts(likelihood, replace(expression, rate=expression.rate[:, :-n], n_regions=0), random)
        return np.hstack(
            [genes, draw_counts("bernoulli", Expression(expression.scale, expression.rate[:, -n:], None, None), random)]
        )
    rate = expression.rate.double().cpu().numpy()
    if likelihood == "bernoulli":
        return (random.random(rate.shape) < rate).astype(np.float32)
    if likelihood == "poisson":
        return random.poisson(rate).astype(np.float32)
    assert expression.theta is not None
    theta = np.broadcast_to(expression.theta.double().cpu().numpy(), rate.shape)
    if likelihood == "normal":
        return random.normal(rate, theta).astype(np.float32)
    if likelihood == "nb":
        return draw_negative_binomial(rate, theta, random)
    assert expression.zi_logits is not None
    kept = random.random(rate.shape) >= torch.sigmoid(expression.zi_logits.double()).cpu().numpy()
    counts = np.zeros(rate.shape, np.float32)
    counts[kept] = draw_negative_binomial(rate[kept], theta[kept], random)
    return counts


def draw_negative_binomial(mean: np.ndarray, theta: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Counts of negative binomials with means and inverse dispersions of one shape, float32.

    Most counts are zero, and a zero costs one uniform number: small means are drawn by walking up the distribution
    function. Large ones are drawn as Poisson counts with a gamma-distributed rate.
    """
    flat_mean, flat_theta = (
        mean.ravel(),
        np.require(theta, requirements=["C", "W"]).ravel(),
    )  # torch takes no read-only array
    counts = np.zeros(flat_mean.shape, np.float32)
    # Pieces that stay in the processor's cache.
    for start in range(0, len(counts), PIECE):
        piece = slice(start, start + PIECE)
        high = flat_mean[piece] > WALK
        _walk(flat_mean[piece], flat_theta[piece], random.random(len(high)), counts[piece])
        if high.any():
            gamma = random.standard_gamma(flat_theta[piece][high]) * (flat_mean[piece] / flat_theta[piece])[high]
            counts[piece][high] = random.poisson(np.minimum(gamma, 1e8))
    return counts.reshape(mean.shape)


def _walk(mean: np.ndarray, theta: np.ndarray, uniform: np.ndarray, counts: np.ndarray) -> None:
    """Write the quantiles at `uniform` of negative binomials with small means into `counts`, which is zero."""
    share = torch.as_tensor(theta / (theta + mean))
    zero = (share.log_() * torch.as_tensor(theta)).exp_().numpy()
    left = np.flatnonzero((uniform > zero) & (mean <= WALK))
    u, mass, shape = uniform[left], zero[left], theta[left]
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
    from scipy.stats import nbinom

    counts[left] = reached
    far = u > cumulative
    counts[left[far]] = nbinom.ppf(np.minimum(u[far], 1 - 1e-15), shape[far], 1 - ratio[far])


def draw_raw_counts(likelihood: str, expression: Expression, random: np.random.Generator) -> np.ndarray:
    """Counts (n, G) float32 as a query has them: whole, not negative, and one at least in every cell.

    A cell that came out empty gets one count of its most expressed gene. A model of normally distributed values gives its
    rounded means, as its draws are no counts.
    """
    rate = expression.rate.double().cpu().numpy()
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

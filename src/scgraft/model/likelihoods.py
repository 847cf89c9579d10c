"""Log-likelihoods of counts and divergences, per entry, as scvi-tools 1.0-1.4 computes them.

`EPS` sits inside the logarithms exactly where scvi-tools has it, so that losses agree to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

EPS = 1e-8  # as scvi-tools has it


def log_counts_constant(x: Tensor, theta: Tensor | None, *, value: bool = True) -> Tensor:
    """What the (zero-inflated) negative binomial, or with `theta` None the Poisson, holds that is free of the mean.

    Without `value` what no gradient depends on is left out: with a dispersion that is not trained, all of it.
    """
    if theta is None:
        return -torch.lgamma(x + 1)
    if not value:
        return torch.lgamma(x + theta) - torch.lgamma(theta) if theta.requires_grad else x.new_zeros(())
    return torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)


def log_nb(x: Tensor, mu: Tensor, theta: Tensor, *, value: bool = True) -> Tensor:
    """Negative binomial with mean `mu` and inverse dispersion `theta` (Lopez et al. 2018); `value` as above."""
    log_sum = torch.log(theta + mu + EPS)
    return (
        theta * (torch.log(theta + EPS) - log_sum)
        + x * (torch.log(mu + EPS) - log_sum)
        + log_counts_constant(x, theta, value=value)
    )


def log_zinb(x: Tensor, mu: Tensor, theta: Tensor, zi_logits: Tensor, *, value: bool = True) -> Tensor:
    """Zero-inflated negative binomial; `zi_logits` are the logits of the extra zeros, `value` as above."""
    log_sum = torch.log(theta + mu + EPS)
    log_theta = torch.log(theta + EPS)
    softplus_pi = _softplus(-zi_logits)
    log_zero_nb = theta * (log_theta - log_sum)
    zero = _softplus(-zi_logits + log_zero_nb) - softplus_pi
    positive = (
        -softplus_pi
        - zi_logits
        + log_zero_nb
        + x * (torch.log(mu + EPS) - log_sum)
        + log_counts_constant(x, theta, value=value)
    )
    return torch.where(x == 0, zero, positive)


def _softplus(x: Tensor) -> Tensor:
    # By default it is linear above 20: off by 2e-9 there, also in its gradient, which double precision sees.
    return softplus(x, threshold=40.0)


def log_poisson(x: Tensor, rate: Tensor) -> Tensor:
    """Poisson."""
    return torch.special.xlogy(x, rate) - rate - torch.lgamma(x + 1)


def log_bernoulli(x: Tensor, probability: Tensor) -> Tensor:
    """Bernoulli: whether a count is there at all; logarithms are cut at -100, as torch's binary cross-entropy does."""
    seen, unseen = (torch.log(p).clamp(min=-100.0) for p in (probability, 1 - probability))
    return torch.where(x > 0, seen, unseen)


def log_normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Normal with standard deviation `scale`."""
    return -0.5 * ((x - loc) / scale) ** 2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)


def kl_normal(mean: Tensor, variance: Tensor, prior_mean: Tensor | float, prior_variance: Tensor | float) -> Tensor:
    """KL divergence between diagonal normals, per dimension."""
    prior_variance = torch.as_tensor(prior_variance, dtype=mean.dtype, device=mean.device)
    ratio = variance / prior_variance
    return 0.5 * (ratio + (mean - prior_mean) ** 2 / prior_variance - 1 - torch.log(ratio))


def log_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log-density of a diagonal normal, summed over the last axis."""
    return -0.5 * ((x - mean) ** 2 / variance + torch.log(variance) + math.log(2 * math.pi)).sum(-1)

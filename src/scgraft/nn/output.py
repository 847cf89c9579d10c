"""The gradient of the counts' likelihood at the frozen output layer, by hand, from the stored counts alone.

The output layer holds most of the arithmetic of a step: genes x hidden. It is frozen, so only the gradient of its
*input* is needed, and of the likelihood only what depends on the mean: every lgamma and every constant drops out. With
mu the mean, theta the inverse dispersion, s the softmax and q = theta / (theta + mu),

    d log NB / d logit_j = x_j q_j - mu_j q_j - s_j V,     V = sum_g (x_g q_g - mu_g q_g),

dense in mu and sparse in x; V is the gradient of the log library size. For the zero-inflated case with logits pi and
n = theta log q, the weight of the negative binomial is sigmoid(n - pi) at zero counts and one elsewhere.
`counts_surrogate` returns numbers whose *gradient* is that of minus the log-likelihood; their value means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StoredCounts:
    """Stored counts of a mini-batch: `position` (nnz,) into the flattened (n, G) matrix, and their values."""

    position: Tensor
    value: Tensor


def counts_surrogate(
    h: Tensor,
    library: Tensor,
    counts: StoredCounts,
    *,
    scale_weight: Tensor,
    scale_bias: Tensor,
    theta: Tensor,
    dropout_weight: Tensor | None = None,
    dropout_bias: Tensor | None = None,
) -> Tensor:
    """Numbers (n,) with the gradient of minus the log-likelihood with respect to `h` (n, H) and `library` (n, 1).

    `theta` is (G,) or (n, G) and frozen; `dropout_weight` is given for the zero-inflated likelihood.
    """
    with torch.no_grad():
        logits = torch.addmm(scale_bias, h, scale_weight.T)
        mu = torch.softmax(logits, dim=1, out=logits).mul_(torch.exp(library))
        q = theta / (theta + mu)
        stored = q.reshape(-1)[counts.position] * counts.value
        grad = mu * q
        inflation = None
        if dropout_weight is not None and dropout_bias is not None:
            pi = torch.addmm(dropout_bias, h, dropout_weight.T)
            at_zero = torch.log(q).mul_(theta).sub_(pi).sigmoid_()
            inflation = torch.sigmoid(-pi).sub_(at_zero)
            pi_stored = pi.reshape(-1)[counts.position]
            at_zero.reshape(-1)[counts.position] = 1.0
            inflation.reshape(-1)[counts.position] = -torch.sigmoid(pi_stored)
            grad.mul_(at_zero)
        flat = grad.neg_().reshape(-1)
        flat[counts.position] += stored
        total = grad.sum(dim=1, keepdim=True)
        grad.addcmul_(mu, total / torch.exp(library), value=-1.0)
        grad_h = grad @ scale_weight
        if inflation is not None and dropout_weight is not None:
            grad_h.addmm_(inflation, dropout_weight)
    return -(h * grad_h).sum(dim=1) - (library * total).sum(dim=1)

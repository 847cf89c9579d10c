"""The likelihood of the counts at the frozen output layer, with its gradient by hand, from the stored counts alone.

The output layer holds most of the arithmetic of a step: genes x hidden. It is frozen, so only the gradient of its
*input* is needed. A zero count contributes only what the mean of every gene needs anyway; terms in the count x touch
the stored entries, and every lgamma is a constant of the cell, computed once. With mu the mean,
theta the inverse dispersion and e = 1e-8 (as in scvi-tools' logarithms),

    log NB = theta log((theta + e) / (theta + e + mu)) + x (log(mu + e) - log(theta + e + mu)) + constant
    d log NB / d log mu = -mu theta / (theta + e + mu) + x (mu / (mu + e) - mu / (theta + e + mu)),

dense in mu and sparse in x. For the zero-inflated case with logits pi and n the first term of log NB, the derivative by
n is sigmoid(n - pi) at a zero count and 1 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from scgraft.model import likelihoods
from scgraft.model.stored import StoredCounts

BLOCK_ENTRIES = 400_000  # entries of a work array: the few there are stay in a core's share of the cache


@dataclass(frozen=True)
class OutputLayer:
    """Frozen last layer of the decoder: `theta` (G,) or (n, G), None for Poisson; `dropout_*` for zero inflation."""

    weight: Tensor
    bias: Tensor
    theta: Tensor | None
    dropout_weight: Tensor | None = None
    dropout_bias: Tensor | None = None


def counts_log_likelihood(
    h: Tensor, library: Tensor, counts: StoredCounts, layer: OutputLayer, *, value: bool = True
) -> Tensor:
    """Log-likelihood of the counts of each cell, (n,), differentiable by `h` (n, H) and `library` (n, 1).

    Without `value` it is zero, with the gradient of the log-likelihood: a step of a fit needs no logarithm of a mean.
    """
    result: Tensor = _CountsLogLikelihood.apply(h, library, counts, layer, value)  # type: ignore[no-untyped-call]
    return result


class _CountsLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, library: Tensor, counts: StoredCounts, layer: OutputLayer, value: bool) -> Tensor:
        """The value, and while the means are at hand its gradient: there is no second pass over the genes."""
        n, n_genes = len(h), len(layer.bias)
        rows = n if h.is_cuda else max(1, min(n, BLOCK_ENTRIES // n_genes))
        work = Work(*(h.new_empty(rows, n_genes) for _ in range(2 if layer.dropout_weight is None else 4)))
        result = Result(
            h.new_empty(n) if value else None,
            *((torch.empty_like(h), h.new_empty(n, 1)) if any(ctx.needs_input_grad) else ()),
        )
        for start in range(0, n, rows):
            part = slice(start, min(start + rows, n))
            _block(
                h[part],
                torch.exp(library[part]),
                counts.rows(part.start, part.stop, n_genes),
                layer,
                layer.theta if layer.theta is None or layer.theta.ndim == 1 else layer.theta[part],
                work.first(part.stop - start),
                result.part(part),
            )
        if result.by_h is not None:
            ctx.save_for_backward(result.by_h, result.by_library)
        return h.new_zeros(n) if result.value is None else result.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        by_h, by_library = ctx.saved_tensors
        return by_h * grad[:, None], by_library * grad[:, None], None, None, None


class Work(NamedTuple):
    """Arrays (rows, G) that every block writes over: allocating them anew costs more than filling them."""

    mean: Tensor
    other: Tensor
    zero: Tensor | None = None
    pi: Tensor | None = None

    def first(self, n: int) -> Work:
        """The first `n` rows."""
        return Work(*(None if array is None else array[:n] for array in self))  # type: ignore[arg-type]


class Result(NamedTuple):
    """Where a block writes what is asked for: the value (n,), its gradient by `h` (n, H) and by the log library size (n, 1)."""

    value: Tensor | None = None
    by_h: Tensor | None = None
    by_library: Tensor | None = None

    def part(self, rows: slice) -> Result:
        """The rows of a block."""
        return Result(*(None if array is None else array[rows] for array in self))  # type: ignore[arg-type]


def _block(
    h: Tensor, total: Tensor, counts: StoredCounts, layer: OutputLayer, theta: Tensor | None, work: Work, out: Result
) -> None:
    mean, other = work.mean, work.other
    torch.addmm(layer.bias, h, layer.weight.T, out=mean)
    torch.softmax(mean, dim=1, out=mean)
    mean.mul_(total)
    stored_mean = _stored(mean, counts)
    eps = likelihoods.EPS if theta is not None else torch.finfo(h.dtype).tiny
    slope = stored_mean / (stored_mean + eps)  # of log(mu + e) by log mu
    stored_inverse, inflation = None, None
    if theta is None:
        if out.value is not None:
            torch.sum(mean, dim=1, out=out.value).neg_()
        torch.neg(mean, out=other)
    else:
        shifted = theta + eps
        zero = other if work.zero is None else work.zero
        if out.value is not None or layer.dropout_weight is not None:
            torch.div(mean, shifted, out=zero).log1p_().mul_(theta).neg_()  # log-probability of no count
        if out.value is not None and layer.dropout_weight is None:
            torch.sum(zero, dim=1, out=out.value)
        torch.add(mean, shifted, out=other).reciprocal_()
        stored_inverse = _stored(other, counts)
        slope.addcmul_(stored_mean, stored_inverse, value=-1.0)
        other.mul_(mean).mul_(-theta)
        if layer.dropout_weight is not None:
            inflation = _inflate(h, counts, layer, work, out)
    if out.value is not None:
        log_ratio = torch.log(stored_mean + eps)
        if stored_inverse is not None:
            log_ratio += torch.log(stored_inverse)
        per_count = log_ratio * counts.value
        if inflation is not None:
            per_count += inflation
        out.value.add_(counts.sum(per_count)).add_(counts.constant)
    if out.by_h is None or out.by_library is None:
        return
    other.view(-1).scatter_add_(0, counts.position, slope.mul_(counts.value))
    torch.sum(other, dim=1, keepdim=True, out=out.by_library)
    other.addcmul_(mean, out.by_library / total, value=-1.0)
    torch.mm(other, layer.weight, out=out.by_h)
    if layer.dropout_weight is not None and work.zero is not None:
        out.by_h.addmm_(work.zero, layer.dropout_weight)


def _inflate(h: Tensor, counts: StoredCounts, layer: OutputLayer, work: Work, out: Result) -> Tensor | None:
    """Zero inflation of a block: its value, `other` weighted, `zero` the gradient by pi; what stored counts add to the value."""
    assert work.zero is not None and work.pi is not None
    assert layer.dropout_weight is not None and layer.dropout_bias is not None
    pi, log_odds, stored = work.pi, work.zero, None
    torch.addmm(layer.dropout_bias, h, layer.dropout_weight.T, out=pi)
    log_odds.sub_(pi)  # of a zero being a count rather than inflation
    if out.value is not None:
        nothing = torch.zeros((), dtype=pi.dtype, device=pi.device)
        torch.sum(torch.logaddexp(log_odds, nothing), dim=1, out=out.value)
        out.value.sub_(torch.logaddexp(-pi, nothing).sum(dim=1))
        stored = logsigmoid(_stored(log_odds, counts))
    log_odds.sigmoid_().view(-1).index_fill_(0, counts.position, 1.0)
    work.other.mul_(log_odds)
    torch.sub(pi.neg_().sigmoid_(), log_odds, out=log_odds)
    return stored


def _stored(dense: Tensor, counts: StoredCounts) -> Tensor:
    return dense.reshape(-1).index_select(0, counts.position)

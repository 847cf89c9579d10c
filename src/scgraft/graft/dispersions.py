"""Dispersions of new batches by Newton's method, where they are all that is left to fit: scPoli's columns of theta.

Given the latents each of them matters to one gene in one batch alone, so its curvature is a number, and six steps reach what a hundred
mini-batches do not, in a quarter of their time (docs/families.md). With more than five batches the mini-batches see more cells of each, and they
are used. The other columns of a decoder stay with the mini-batches: on few cells second-order steps follow these too closely. With L-BFGS for
TOTALVI's the held-out likelihood was nearly the same, and 15 % of a query's cells were called novel instead of 7 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from scgraft.graft.minimise import EVALUATE_BLOCK, HELD_OUT_AT_MOST, Outcome, Problem, evaluator, n_steps
from scgraft.numerics.newton import newton
from scgraft.progress import Advance, step

Rows = dict[str, Tensor]
CELLS = 640  # of a fit: all batches together; chosen by eye, not measured
FEWEST = 128  # of a batch: chosen by eye, not measured
STEPS = 16  # steps of the mini-batches that one of these replaces: six by default, after which nothing changed (docs/families.md)
EVALUATE_EVERY = 3  # steps: two evaluations of a default fit; chosen by eye, not measured
REACH = 2.5  # logarithm of a dispersion: as far as the steps of the mini-batches together reach


def suits(problem: Problem, used: np.ndarray, roles: Collection[str]) -> bool:
    """Whether dispersions are all that is left, of few enough batches; `roles` are those of what is left."""
    alone = set(roles) == {"dispersion"} and problem.cells.posterior is not None
    return alone and FEWEST * len(np.unique(problem.codes[used])) <= CELLS


def fit_dispersions(problem: Problem, used: np.ndarray, held: np.ndarray) -> Outcome:
    """The best rows on held-out cells, of those on the way."""
    codes, total = problem.codes[used], max(n_steps(problem.config, len(used)) // STEPS, 1)
    each = CELLS // len(np.unique(codes))
    cells = np.concatenate([used[codes == code][:each] for code in np.unique(codes)])
    evaluate = evaluator(problem, held if len(held) >= 10 else used[:HELD_OUT_AT_MOST])
    fit = _Fit(problem, cells)
    first = evaluate(problem.start)
    if not math.isfinite(first) or not math.isfinite(fit.value(problem.start)):
        batches = ", ".join(sorted({problem.levels[code] for code in np.unique(codes)}))
        reason = (
            f"The loss is {first} before the first step, for cells of batches {batches}. Look for extreme counts in the query. The start is in "
            "this error's `graft`."
        )
        return Outcome(dict(problem.start), 0, reason, [(0, first)], diverged=True)
    path = newton(fit.curved, problem.start, total, reach=REACH)
    with step("fitting the new columns", total) as advance:
        return _best(problem, path, evaluate, first, total, advance)


def _best(
    problem: Problem,
    path: Iterator[tuple[int, Rows]],
    evaluate: Callable[[Mapping[str, Tensor]], float],
    first: float,
    total: int,
    advance: Advance,
) -> Outcome:
    best, best_loss, waited, trace = dict(problem.start), first, 0, [(0, first)]
    for number, rows in path:
        advance(1)
        if number % EVALUATE_EVERY and number != total:
            continue
        now = evaluate(rows)
        trace.append((number, now))
        waited = 0 if now < best_loss else waited + 1
        if now < best_loss:
            best, best_loss = rows, now
        if waited >= problem.config.patience:
            return Outcome(best, number, "The held-out loss stopped falling.", trace)
    return Outcome(best, total, "The last step was reached.", trace)


class _Fit:
    """Mean loss of some cells under fixed draws, with its derivatives by the rows; blocks bound the memory."""

    def __init__(self, problem: Problem, cells: np.ndarray) -> None:
        device = problem.cells.product.device
        generator = torch.Generator(device).manual_seed(problem.config.seed)
        blocks = [cells[i : i + EVALUATE_BLOCK] for i in range(0, len(cells), EVALUATE_BLOCK)]
        self.problem, self.n = problem, len(cells)
        self.batches = [problem.batch(block, torch.from_numpy(block).to(device)) for block in blocks]
        self.noises = [problem.noise(len(block), generator) for block in blocks]

    def value(self, rows: Mapping[str, Tensor]) -> float:
        """The loss, but for what does not depend on the rows."""
        with torch.no_grad():
            return sum(float(self._loss(i, rows)) for i in range(len(self.batches)))

    def _loss(self, block: int, rows: Mapping[str, Tensor]) -> Tensor:
        noise = self.noises[block]
        return self.problem.loss(self.batches[block], rows, noise, value=False) * (len(noise) / self.n)

    def curved(self, rows: Mapping[str, Tensor]) -> tuple[Rows, Rows]:
        """Gradient and second derivative of every number, of a loss that is a sum over them."""
        gradients = {name: torch.zeros_like(row) for name, row in rows.items()}
        curvatures = {name: torch.zeros_like(row) for name, row in rows.items()}
        for block in range(len(self.batches)):
            own = {name: row.detach().requires_grad_() for name, row in rows.items()}
            parts = torch.autograd.grad(self._loss(block, own), list(own.values()), create_graph=True)
            seconds = torch.autograd.grad(torch.stack([part.sum() for part in parts]).sum(), list(own.values()))
            for name, part, second in zip(own, parts, seconds, strict=True):
                gradients[name] += part.detach()
                curvatures[name] += second
        return gradients, curvatures

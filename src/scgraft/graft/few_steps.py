"""Columns that only the decoder sees, fitted in a few steps over the same cells and draws.

Given the latents they are a smooth problem without chance in it, and a step is dear where the likelihood has to be computed for every gene
of every cell by torch (TOTALVI, MULTIVI, scPoli, dispersions by batch): second-order steps then need about a quarter of the time of the
mini-batches in :mod:`scgraft.graft.minimise` for about the same held-out likelihood (docs/families.md). With many batches the mini-batches see more
cells of each in the same time, and they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from scgraft.graft.minimise import EVALUATE_BLOCK, HELD_OUT_AT_MOST, Outcome, Problem, evaluator, n_steps
from scgraft.numerics.lbfgs import lbfgs
from scgraft.numerics.newton import newton
from scgraft.progress import Advance, step

Rows = dict[str, Tensor]
CELLS = 640  # cells of a fit: twenty evaluations of them are the hundred mini-batches of 128
PER_BATCH = 256  # more changed the held-out loss by less than 0.1 % (six pairs of real cells, docs/families.md)
FEWEST = 128  # of a batch: with fewer the columns begin to follow single cells
STEPS, NEWTON_STEPS = 5, 16  # steps of the mini-batches that one of these replaces
EVALUATE_EVERY = 5  # steps: four evaluations of a default fit, as of the mini-batches; chosen by eye, not measured
REACH = 2.5  # logarithm of a dispersion: as far as the steps of the mini-batches together reach


def suits(problem: Problem, used: np.ndarray) -> bool:
    """Whether few steps over some cells of each batch do what many over mini-batches do, and cost less."""
    return not problem.model.by_hand and FEWEST * len(np.unique(problem.codes[used])) <= CELLS


def minimise_in_few_steps(problem: Problem, used: np.ndarray, held: np.ndarray, *, separable: bool) -> Outcome:
    """The best rows on held-out cells; `separable` says that every number of them matters to one gene in one batch alone."""
    if not problem.start:
        return Outcome({}, 0, "There was nothing to train.", [])
    codes, replaced = problem.codes[used], NEWTON_STEPS if separable else STEPS
    total = max(n_steps(problem.config, len(used)) // replaced, 1)
    each = min(CELLS if separable else PER_BATCH, CELLS // len(np.unique(codes)))
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
    path: Iterator[tuple[int, Rows]] = (
        newton(fit.curved, problem.start, total, reach=REACH) if separable else lbfgs(fit.sloped, problem.start, total)
    )
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
    best, best_loss, waited, trace, number = dict(problem.start), first, 0, [(0, first)], 0
    rows = best
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
    if number == total:
        return Outcome(best, total, "The last step was reached.", trace)
    if trace[-1][0] != number and (now := evaluate(rows)) < best_loss:
        best, trace = rows, [*trace, (number, now)]
    return Outcome(best, number, "No further step lowered the loss.", trace)


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
            return sum(float(loss) for loss in self._losses(rows))

    def _losses(self, rows: Mapping[str, Tensor]) -> Iterator[Tensor]:
        for batch, noise in zip(self.batches, self.noises, strict=True):
            yield self.problem.loss(batch, rows, noise, value=False) * (len(noise) / self.n)

    def sloped(self, rows: Mapping[str, Tensor]) -> tuple[float, Rows]:
        """The loss, but for what does not depend on the rows, and its gradient."""
        total, found = 0.0, {name: torch.zeros_like(row) for name, row in rows.items()}
        for loss, own in self._traced(rows):
            total += float(loss.detach())
            for name, part in zip(own, torch.autograd.grad(loss, list(own.values()), allow_unused=True), strict=True):
                if part is not None:
                    found[name] += part
        return total, found

    def curved(self, rows: Mapping[str, Tensor]) -> tuple[Rows, Rows]:
        """Gradient and second derivative of every number, of a loss that is a sum over them."""
        gradients = {name: torch.zeros_like(row) for name, row in rows.items()}
        curvatures = {name: torch.zeros_like(row) for name, row in rows.items()}
        for loss, own in self._traced(rows):
            parts = torch.autograd.grad(loss, list(own.values()), create_graph=True)
            seconds = torch.autograd.grad(torch.stack([part.sum() for part in parts]).sum(), list(own.values()))
            for name, part, second in zip(own, parts, seconds, strict=True):
                gradients[name] += part.detach()
                curvatures[name] += second
        return gradients, curvatures

    def _traced(self, rows: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Rows]]:
        """Loss of each block, and the rows that it was computed from, which remember it."""
        for batch, noise in zip(self.batches, self.noises, strict=True):
            own = {name: row.detach().requires_grad_() for name, row in rows.items()}
            yield self.problem.loss(batch, own, noise, value=False) * (len(noise) / self.n), own

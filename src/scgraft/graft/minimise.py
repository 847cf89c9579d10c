"""The training loop: one explicit loop over cached activations, in which only new columns have a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scgraft.graft.levels import level_codes
from scgraft.graft.objective import mixture_tensors, objective_named
from scgraft.model.build import build, make_cells
from scgraft.numerics.adam import Adam, cosine
from scgraft.numerics.atlas import Atlas
from scgraft.numerics.products import fast_products
from scgraft.progress import Advance, step
from scgraft.values.graft import FitConfig
from scgraft.values.names import BATCH
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scgraft.model.protocol import Model
    from scgraft.model.stored import CountStore
    from scgraft.model.vae import Cells

EVALUATE_EVERY = 20  # steps: five evaluations of a default fit; chosen by eye, not measured
HELD_OUT_AT_MOST = 512  # cells: four default steps of them; chosen by eye, not measured
EVALUATE_BLOCK = 256  # cells evaluated at a time; chosen for memory, the speed was not measured
IMPROVEMENT = 0.02  # nats per cell: below what changes a mapping, above the noise of the held-out estimate


@dataclass(frozen=True)
class Problem:
    """What is minimised over: the rows that start at `start`. Everything else, all on one device, is a constant.

    `fixed` are new rows that the query's counts decide; `levels` are the names of the batches of the cells, `codes` (n,) their codes, on the host.
    """

    model: Model
    cells: Cells
    counts: CountStore
    start: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    config: FitConfig
    prior: tuple[Tensor, Tensor, Tensor] | None
    levels: tuple[str, ...]
    codes: np.ndarray

    def batch(self, index: np.ndarray, where: Tensor) -> Cells:
        """Cells of a mini-batch with their counts; `where` is `index` on the device."""
        return self.cells.take(where, self.counts.take(index, where))

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Standard normal draws for the posteriors of `n` cells."""
        like = self.cells.product
        return torch.randn(n, self.model.noise_width, generator=generator, dtype=like.dtype, device=like.device)

    def loss(self, batch: Cells, rows: Mapping[str, Tensor], noise: Tensor, *, value: bool = True) -> Tensor:
        """Mean loss of the cells, in nats per cell; without `value` a number with its gradient."""
        terms = self.model.terms(batch, {**self.fixed, **rows}, noise, value=value)
        return objective_named(self.config.objective)(terms, self.config.kl_weight, self.prior).mean()

    def gradients(self, batch: Cells, rows: Mapping[str, Tensor], noise: Tensor) -> tuple[Tensor | None, ...]:
        """Of the loss by the rows, in their order; None for those that do not matter to these cells."""
        with fast_products(self.cells.product.device, exact=False):
            loss = self.loss(batch, rows, noise, value=False)
            return torch.autograd.grad(loss, list(rows.values()), allow_unused=True)


def make_problem(
    reference: Reference,
    query: Query,
    levels: Mapping[str, tuple[str, ...]],
    rows: Mapping[str, np.ndarray],
    trainable: tuple[str, ...],
    config: FitConfig,
    device: torch.device,
    atlas: Atlas | None,
) -> Problem:
    """Move everything that the fit needs to the device, and compute once what does not change."""
    model = build(reference, device)
    cells = make_cells(model, query, level_codes(query, reference.schema, levels), device)
    prior = None if atlas is None or config.objective != "atlas" else mixture_tensors(atlas.mixture, cells.product)
    tensors = {name: torch.tensor(row).to(cells.product) for name, row in rows.items()}
    return Problem(
        model=model,
        cells=cells,
        counts=model.store(query.counts, cells),
        start={name: tensors[name] for name in trainable},
        fixed={name: row for name, row in tensors.items() if name not in trainable},
        config=config,
        prior=prior,
        levels=tuple(query.levels[BATCH]),
        codes=query.codes[:, 0],
    )


def with_posteriors(problem: Problem) -> Problem:
    """The problem of columns that do not move the latents: these are computed once, and nothing looks at their prior."""
    with torch.no_grad():
        posterior = problem.model.encode(problem.cells, problem.fixed)
    return replace(problem, model=problem.model.autoencoder, cells=replace(problem.cells, posterior=posterior))


@dataclass(frozen=True)
class Outcome:
    """End of a minimisation: the best rows, where they were found, and why it stopped."""

    rows: dict[str, Tensor]
    steps: int
    reason: str
    trace: list[tuple[int, float]]
    diverged: bool = False


def minimise(problem: Problem, used: np.ndarray, held: np.ndarray) -> Outcome:
    """Adam along a cosine until the held-out loss stops falling; the best rows are kept."""
    if not problem.start:
        return Outcome({}, 0, "There was nothing to train.", [])
    size, total = min(problem.config.batch_size, len(used)), n_steps(problem.config, len(used))
    with step("fitting the new columns", total) as advance:
        return _minimised(problem, used, held, mini_batches(used, size, total, problem.config.seed), advance)


def n_steps(config: FitConfig, n_cells: int) -> int:
    """Steps of mini-batches that the settings allow for so many cells."""
    if config.epochs is None:
        return config.max_steps
    return min(config.max_steps, config.epochs * math.ceil(n_cells / min(config.batch_size, n_cells)))


def _minimised(problem: Problem, used: np.ndarray, held: np.ndarray, order: np.ndarray, advance: Advance) -> Outcome:
    config, device = problem.config, problem.cells.product.device
    generator = torch.Generator(device).manual_seed(config.seed)
    rows = {name: row.clone().requires_grad_() for name, row in problem.start.items()}
    total, size = order.shape
    order_there = torch.from_numpy(order).to(device)
    evaluate = evaluator(problem, held if len(held) >= 10 else used[:HELD_OUT_AT_MOST])
    adam = Adam(rows)

    def copy() -> dict[str, Tensor]:
        return {name: row.detach().clone() for name, row in rows.items()}

    best, best_loss, waited = copy(), evaluate(rows), 0
    trace = [(0, best_loss)]
    for number in range(1, total + 1):
        batch = problem.batch(order[number - 1], order_there[number - 1])
        gradients = problem.gradients(batch, rows, problem.noise(size, generator))
        adam.step(gradients, cosine(config.learning_rate, number, total))
        advance(1)
        if number % EVALUATE_EVERY and number != total:
            continue
        now = evaluate(rows)
        if not math.isfinite(now) or not all(bool(p.isfinite().all()) for p in rows.values()):
            batches = ", ".join(sorted({problem.levels[c] for c in problem.codes[order[number - 1]]}))
            reason = (
                f"The loss became {now} at step {number}, after cells of batches {batches}. Look for extreme counts in "
                "the query, or lower FitConfig(learning_rate=...) (--learning-rate). The last finite columns are in this error's `graft`."
            )
            return Outcome(best, number, reason, trace, diverged=True)
        trace.append((number, now))
        waited = 0 if now < best_loss - IMPROVEMENT else waited + 1
        if now < best_loss:
            best, best_loss = copy(), now
        if waited >= config.patience:
            return Outcome(best, number, "The held-out loss stopped falling.", trace)
    return Outcome(best, total, "The last step was reached.", trace)


def mini_batches(cells: np.ndarray, size: int, steps: int, seed: int) -> np.ndarray:
    """Cells of each step (steps, size): one seeded permutation after the other."""
    rng = np.random.default_rng(seed)
    rounds = math.ceil(steps * size / len(cells))
    return np.concatenate([rng.permutation(cells) for _ in range(rounds)])[: steps * size].reshape(steps, size)


def evaluator(problem: Problem, cells: np.ndarray) -> Callable[[Mapping[str, Tensor]], float]:
    """Mean loss of fixed cells under fixed draws, as a function of the rows."""
    device = problem.cells.product.device
    generator = torch.Generator(device).manual_seed(problem.config.seed + 1)
    blocks = [cells[i : i + EVALUATE_BLOCK] for i in range(0, len(cells), EVALUATE_BLOCK)]
    batches = [problem.batch(block, torch.from_numpy(block).to(device)) for block in blocks]
    noises = [problem.noise(len(block), generator) for block in blocks]

    def evaluate(rows: Mapping[str, Tensor]) -> float:
        with torch.no_grad(), fast_products(device, exact=True):
            losses = [problem.loss(b, rows, e) * len(e) for b, e in zip(batches, noises, strict=True)]
            return float(torch.stack(losses).sum()) / len(cells)

    return evaluate

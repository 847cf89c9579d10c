"""Reference + Query + FitConfig -> Graft: one explicit loop over cached activations.

Only the new columns are tensors with a gradient. Everything else is a constant: no dropout, norms at their running
statistics, nothing that a weight decay or a momentum could move.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scgraft import __version__
from scgraft.adam import Adam, cosine
from scgraft.atlas import Atlas
from scgraft.errors import FitDiverged, NoLabels
from scgraft.families import family_of
from scgraft.levels import level_codes
from scgraft.matching import Matched, match_columns
from scgraft.model import build, embed_cells, make_cells, pick_device, take_cells
from scgraft.objective import mixture_tensors, objective_named
from scgraft.products import fast_products, one_thread
from scgraft.slots import column_prior, library_prior_rows, start_rows
from scgraft.transfer import reference_classes
from scgraft.values import BATCH, FitConfig, FitRecord, Graft, Query, Reference, Slot

if TYPE_CHECKING:
    from scgraft.nn.scanvae import Scanvae
    from scgraft.nn.stored import CountStore
    from scgraft.nn.vae import Cells, Vae

EVALUATE_EVERY = 20
HELD_OUT_AT_MOST = 512
EVALUATE_BLOCK = 256
IMPROVEMENT = 0.02  # nats per cell: below what changes a mapping, above the noise of the held-out estimate


def fit(reference: Reference, query: Query, config: FitConfig | None = None) -> Graft:
    """Fit new columns for the query's new batches; the reference stays as it is.

    Parameters
    ----------
    reference
        The reference.
    query
        Aligned cells with raw UMI counts, from :func:`scgraft.align`.
    config
        Settings. ``FitConfig(epochs=0)`` keeps the start: a mapping without training.

    Returns
    -------
    Graft
        The new columns, with a record of what happened. The same seed and device give the same bytes on a CPU.

    Raises
    ------
    FitDiverged
        The loss became NaN; the error's `graft` holds the last finite state.
    NoLabels
        ``FitConfig.labels`` is no column of the reference's cells.

    Notes
    -----
    Random: the start (``start="random"`` only), the cells that are used and held out, the order of the mini-batches
    and the draws from the posterior. All come from ``config.seed``.
    """
    config = config or FitConfig()
    began = time.perf_counter()
    family = family_of(reference.base.family)
    slots = family.slots(reference.hyper, reference.schema, reference.weights)
    levels = {name: names for name, names in query.alignment.new_levels.items() if names}
    n_new = {name: len(names) for name, names in levels.items()}
    rows = start_rows(reference.weights, slots, n_new, start=config.start, seed=config.seed)
    rows |= library_prior_rows(query, slots, n_new)
    before = weights_hash(reference.weights)
    trainable = [s for s in slots if s.trainable and s.name in rows]
    skip = reason_to_skip(trainable, levels, config)
    device = pick_device(config.device)
    objective = config.objective if reference.latent is not None else "elbo"
    record = FitRecord(
        config, trained=False, objective=objective, reason=skip or "", n_cells=len(query.cells), versions=versions()
    )
    if skip:
        record = replace(record, reference_unchanged=(before, before), seconds=time.perf_counter() - began)
        return Graft(reference.base, levels, rows, record)

    used, held = choose_cells(query, config)
    chosen = np.sort(np.concatenate([used, held]))
    names = tuple(s.name for s in trainable)
    atlas = None if objective == "elbo" or reference.latent is None else reference.latent.atlas
    settings = replace(config, objective=objective)
    problem = make_problem(reference, take_cells(query, chosen), levels, rows, names, settings, device, atlas)
    start, matched = problem.start, None
    encoder = [s for s in trainable if s.role == "encoder"]
    with one_thread():
        if objective == "match" and atlas is not None and encoder:
            prior = {s.name: column_prior(reference.weights, s) for s in encoder}
            matched = match(problem, atlas, prior, labels_of(reference, atlas, config))
            left = {name: row for name, row in start.items() if name not in matched.rows}
            problem = replace(problem, start=left, fixed={**problem.fixed, **matched.rows})
        if objective == "match":
            problem = with_posteriors(problem)
        outcome = minimise(problem, np.searchsorted(chosen, used), np.searchsorted(chosen, held))
    new = outcome.rows if matched is None else {**matched.rows, **outcome.rows}
    fitted = rows | {name: row.cpu().numpy() for name, row in new.items()}
    if matched is not None:
        record = replace(
            record,
            reach=matched.reach,
            gain=finite(matched.gain),
            gain_error=finite(matched.gain_error),
            confidence=finite(matched.confidence),
        )
    record = replace(
        record,
        trained=True,
        reason=(outcome.reason if matched is None else matched.reason) + fallback(config, objective),
        steps=outcome.steps + (0 if matched is None else matched.steps),
        n_fit_cells=len(chosen),
        loss=tuple(outcome.trace),
        n_parameters=sum(rows[s.name].size for s in trainable),
        moved=movement(problem, start, new),
        reference_unchanged=(before, weights_hash(reference.weights)),
        seconds=time.perf_counter() - began,
    )
    graft = Graft(reference.base, levels, fitted, record)
    if outcome.diverged:
        raise FitDiverged(outcome.reason, graft)
    return graft


def fallback(config: FitConfig, objective: str) -> str:
    """Sentence for the receipt where the objective is not the one that was asked for."""
    if config.objective == objective:
        return ""
    return f" The published objective was used, not {config.objective!r}: the reference stores no latents."


def finite(number: float) -> float | None:
    """A number for the record, None where there is none."""
    return round(number, 4) if math.isfinite(number) else None


def labels_of(reference: Reference, atlas: Atlas, config: FitConfig) -> np.ndarray | None:
    """Codes of the labels of the atlas's cells, None without two labels to tell apart."""
    key = config.labels or reference.schema.labels_key
    if key is None or reference.obs is None or key not in reference.obs:
        if config.labels is None or reference.obs is None:
            return None
        columns = ", ".join(map(str, reference.obs.columns))
        raise NoLabels(f"The reference has no label column {key!r}; its cells have {columns}. Choose one of these.")
    classes, codes = reference_classes(reference, key)
    return codes[atlas.index] if len(classes) > 1 else None


def match(
    problem: Problem,
    atlas: Atlas,
    prior: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray | None,
) -> Matched:
    """Encoder columns of a problem, matched to the atlas; `prior` holds their mean and variance by name."""

    def there(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array).to(problem.cells.product)

    return match_columns(
        problem.model,
        problem.cells,
        problem.codes,
        atlas,
        labels=labels,
        start={name: problem.start[name] for name in prior},
        fixed=problem.fixed,
        prior={name: (there(mean), there(variance)) for name, (mean, variance) in prior.items()},
        config=problem.config,
    )


def reason_to_skip(trainable: list[Slot], levels: Mapping[str, tuple[str, ...]], config: FitConfig) -> str | None:
    """Why there is nothing to train, in a sentence for the user; None when there is."""
    if not levels:
        return "The query has only batches that the reference knows: their columns stay as they are."
    if config.epochs == 0 or config.max_steps == 0:
        return f"No training was asked for: the new columns keep their start ({config.start})."
    if not trainable:
        return "The model has no numbers that belong to a batch, so there is nothing to train."
    if not config.force and not any(s.role == "encoder" for s in trainable):
        return (
            "The encoder of this reference does not see the batch, so training cannot move the latent: projecting the "
            "cells is the exact answer, and the training was skipped."
        )
    return None


def choose_cells(query: Query, config: FitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Cells to fit on and cells held out, each new batch at most ``config.fit_cells`` of them (seeded)."""
    rng = np.random.default_rng(config.seed)
    chosen = []
    for code in np.unique(query.codes[:, 0]):
        members = rng.permutation(np.flatnonzero(query.codes[:, 0] == code))
        chosen.append(members if config.fit_cells is None else members[: config.fit_cells])
    cells = rng.permutation(np.concatenate(chosen))
    n_held = min(int(config.holdout * len(cells)), HELD_OUT_AT_MOST)
    return cells[n_held:], cells[:n_held]


@dataclass(frozen=True)
class Problem:
    """What is minimised over: the rows that start at `start`. Everything else, all on one device, is a constant.

    `fixed` are new rows that the query's counts decide; `levels` are the names of the batches of the cells, `codes` (n,) their codes, on the host.
    """

    model: Vae | Scanvae
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
    config, device = problem.config, problem.cells.product.device
    generator = torch.Generator(device).manual_seed(config.seed)
    rows = {name: row.clone().requires_grad_() for name, row in problem.start.items()}
    size = min(config.batch_size, len(used))
    total = config.max_steps
    if config.epochs is not None:
        total = min(total, config.epochs * math.ceil(len(used) / size))
    order = mini_batches(used, size, total, config.seed)
    order_there = torch.from_numpy(order).to(device)
    evaluate = evaluator(problem, held if len(held) >= 10 else used[:HELD_OUT_AT_MOST])
    adam = Adam(rows)

    def copy() -> dict[str, Tensor]:
        return {name: row.detach().clone() for name, row in rows.items()}

    if not rows:
        return Outcome({}, 0, "There was nothing to train.", [])
    best, best_loss, waited = copy(), evaluate(rows), 0
    trace = [(0, best_loss)]
    steps = progress_bar(total, config.progress)
    for step in steps(range(1, total + 1)):
        batch = problem.batch(order[step - 1], order_there[step - 1])
        gradients = problem.gradients(batch, rows, problem.noise(size, generator))
        adam.step(gradients, cosine(config.learning_rate, step, total))
        if step % EVALUATE_EVERY and step != total:
            continue
        now = evaluate(rows)
        if not math.isfinite(now) or not all(bool(p.isfinite().all()) for p in rows.values()):
            batches = ", ".join(sorted({problem.levels[c] for c in problem.codes[order[step - 1]]}))
            reason = (
                f"The loss became {now} at step {step}, after cells of batches {batches}. Look for extreme counts in "
                "the query, or lower FitConfig.learning_rate. The last finite columns are in this error's `graft`."
            )
            return Outcome(best, step, reason, trace, diverged=True)
        trace.append((step, now))
        waited = 0 if now < best_loss - IMPROVEMENT else waited + 1
        if now < best_loss:
            best, best_loss = copy(), now
        if waited >= config.patience:
            return Outcome(best, step, "The held-out loss stopped falling.", trace)
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


def progress_bar(total: int, shown: bool) -> Callable[[range], range]:
    """Progress bar with the time that is left, or nothing."""
    if not shown:
        return lambda steps: steps
    from tqdm.auto import tqdm

    return lambda steps: tqdm(steps, total=total, desc="fit", unit="step")  # type: ignore[return-value]


def movement(problem: Problem, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, float]:
    """How far the latent of each batch's fitted cells moved in the fit, in units of the latent's spread."""
    before, _ = embed_cells(problem.model, problem.cells, {**problem.fixed, **start})
    after, _ = embed_cells(problem.model, problem.cells, {**problem.fixed, **end})
    spread = float(np.sqrt(after.var(axis=0).sum())) or 1.0
    distance = np.linalg.norm(after - before, axis=1) / spread
    return {problem.levels[c]: round(float(distance[problem.codes == c].mean()), 4) for c in np.unique(problem.codes)}


def weights_hash(weights: Mapping[str, np.ndarray]) -> str:
    """sha256 of a state dict: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}{weights[name].dtype}".encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"scgraft": __version__, "torch": str(torch.__version__), "numpy": np.__version__}

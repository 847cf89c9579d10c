"""The objective ``"match"``: encoder columns with which the query's cells lie where the reference's cells of their kind lie.

The columns are fitted twice, near and then far, and each fit is undone where a test that needs no labels of the query shows
that it hurts. Only posterior means are compared, so a step costs the encoder on a few hundred cells and no gene is
decoded. Of the reference only the stored latents are needed. Sources: :mod:`scgraft.graft.objective`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from scgraft.graft.objective import (
    Pairs,
    column_penalty,
    mixture_log_density,
    mixture_tensors,
    pairs_within,
    stratified_energy,
)
from scgraft.model.build import embed_cells
from scgraft.numerics.adam import Adam, cosine
from scgraft.numerics.atlas import Atlas
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.products import fast_products
from scgraft.numerics.tensors import as_tensor
from scgraft.numerics.votes import neighbour_vote
from scgraft.progress import step
from scgraft.values.graft import FitConfig

if TYPE_CHECKING:
    from scgraft.model.protocol import Model
    from scgraft.model.vae import Cells

# Weight of the energy distance against the prior on the columns: lambda = 1e5 * n / (n + 100) for a query of n cells, so a
# query of 100 cells gets half of it. 1e5 was chosen among 1e3 to 1e6 by benchmarks/quality.py (docs/objective-evidence.md).
STRENGTH, HALF_STRENGTH_CELLS = 1e5, 100
# Steps of each of the two fits; after how many the cells' nearest clusters are looked up again; reference cells that vote for
# a cell's cluster (as many as vote for its label, scgraft.numerics.votes.K). The steps: by eye.
STEPS, UPDATE_EVERY, VOTERS = 75, 25, 30
# Cells in a step: 256, and 64 of each batch where there are many batches, but no more than 1024. Chosen by eye, not
# measured.
CELLS_IN_STEP, CELLS_IN_STEP_OF_BATCH, MOST_IN_STEP = 256, 64, 1024
# Cells of the whole fit: 1000, and 200 of each batch where there are many batches. 300 were as good as 1,135 on one reference of
# PBMC (docs/performance.md).
CELLS, CELLS_OF_BATCH = 1000, 200
STANDARD_ERRORS = 2.0  # the usual limit of a clear loss
LOST_CONFIDENCE = 0.02  # chosen by benchmarks/quality.py (docs/objective-evidence.md)
Rows = dict[str, Tensor]
Reach = Literal["start", "near", "far"]


@dataclass(frozen=True)
class Matched:
    """Encoder columns that were kept, and the numbers that decided.

    Parameters
    ----------
    rows
        The columns, by slot name.
    reach
        Which fit was kept: ``"start"`` (none), ``"near"`` (a cell is compared with the atlas cells of its own cluster) or
        ``"far"`` (with the atlas cells of all clusters that its neighbours are in).
    gain, gain_error
        Mean log-density of the cells' latents under the atlas, near fit minus start, in nats per cell, and its standard error.
    confidence
        Mean share of the vote that a cell's label gets, far fit minus start; NaN where the far fit was not tried.
    steps
        Steps of both fits together.
    """

    rows: Rows
    reach: Reach
    gain: float
    gain_error: float
    confidence: float
    steps: int

    @property
    def reason(self) -> str:
        """What was kept and why, in a sentence."""
        numbers = f"{self.gain:.3g} ± {self.gain_error:.2g} nats per cell"
        if self.reach == "start":
            return f"The start was kept: the fit would change the latents' log-density in the atlas by {numbers}."
        said = f"The fit was kept: the latents' log-density in the atlas changed by {numbers}"
        if math.isnan(self.confidence):
            return f"{said}."
        if self.reach == "far":
            return f"{said}; reaching further changed the vote for the cells' labels by {self.confidence:+.3f}."
        return f"{said}; reaching further was not kept: it would change the vote for the cells' labels by {self.confidence:+.3f}."


@dataclass(frozen=True)
class Scene:
    """What does not change while encoder columns are matched: cells with their batch codes (n,), atlas, column prior.

    `labels` (m,) are codes of the atlas cells' labels, -1 for none; None where the reference has no labels.
    """

    model: Model
    cells: Cells
    codes: np.ndarray
    atlas: Atlas
    labels: np.ndarray | None
    fixed: Mapping[str, Tensor]
    prior: Mapping[str, tuple[Tensor, Tensor]]
    config: FitConfig

    def latents(self, rows: Mapping[str, Tensor]) -> np.ndarray:
        """Posterior means (n, d) of all cells."""
        return embed_cells(self.model, self.cells, {**self.fixed, **rows})[0]

    def clusters(self, latents: np.ndarray) -> np.ndarray:
        """Share (n, k) of each cell's nearest atlas cells that are in each cluster."""
        cluster = self.atlas.cluster
        found = nearest(self.atlas.points, latents, k=min(VOTERS, len(cluster))).indices
        shares = np.zeros((len(found), cluster.max() + 1), np.float32)
        np.add.at(shares, (np.arange(len(found))[:, None], cluster[found]), 1 / found.shape[1])
        return shares

    def density(self, latents: np.ndarray) -> np.ndarray:
        """Log-density (n,) of latents under the atlas, in nats."""
        there = as_tensor(latents).to(self.cells.product)
        return mixture_log_density(there, mixture_tensors(self.atlas.mixture, there)).double().cpu().numpy()

    def confidence(self, latents: np.ndarray) -> float:
        """Mean share of the vote that a cell's best label gets; if votes were calibrated, the share of labels that are right."""
        assert self.labels is not None
        found = nearest(self.atlas.points, latents, k=min(VOTERS, len(self.labels)))
        return float(neighbour_vote(self.labels, int(self.labels.max()) + 1, found).max(axis=1).mean())


def match_columns(
    model: Model,
    cells: Cells,
    codes: np.ndarray,
    atlas: Atlas,
    *,
    labels: np.ndarray | None,
    start: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    prior: Mapping[str, tuple[Tensor, Tensor]],
    config: FitConfig,
) -> Matched:
    """Fit encoder columns, first near and then far, and keep the fit, or the start, that serves the cells best.

    Parameters
    ----------
    model, cells
        The frozen model and the cells of the fit, counts not needed.
    codes
        Batch of each cell, (n,).
    atlas
        Of the reference.
    labels
        Codes of the atlas cells' labels, (m,), -1 for none; without them nothing can tell whether to keep the far fit, and it
        is not tried.
    start
        Encoder rows to fit, by slot name.
    fixed
        The other new rows.
    prior
        Mean and variance of the rows by slot name, from :func:`scgraft.graft.start.column_prior`.
    config
        `learning_rate`, `max_steps`, `epochs` and `seed` are used.

    Notes
    -----
    The near fit is undone if the mean log-density of the latents under the atlas falls by more than two standard errors: then
    it has moved cells to where the reference has none. (The log-density is not what the fit minimises, so it is a test.)

    The far fit can move a batch by more than the width of a cluster. If the query holds a single type, it can also move that
    type into its neighbours. It is undone if the mean share of the vote for a cell's label falls by more than 0.02.

    Random, from ``config.seed``: the cells that are used where there are more than 1,000, the mini-batches and the atlas
    points.
    """
    chosen = choose(codes, config.seed)
    if len(chosen) < len(codes):
        cells, codes = cells.take(as_tensor(chosen).to(cells.product.device)), codes[chosen]
    scene = Scene(model, cells, codes, atlas, labels, fixed, prior, config)
    if len(codes) < 2:
        return Matched(dict(start), "start", 0.0, 0.0, np.nan, 0)  # one cell shows no distribution
    size = step_size(codes)
    steps = min(STEPS, config.max_steps)
    if config.epochs is not None:
        steps = min(steps, config.epochs * -(-len(codes) // size))
    near = descend(scene, start, steps, far=False)
    at_start, at_near = scene.latents(start), scene.latents(near)
    if not np.isfinite(at_near).all():
        return Matched(dict(start), "start", -np.inf, 0.0, np.nan, steps)
    gain, error = mean_and_error(scene.density(at_near) - scene.density(at_start))
    if gain < -STANDARD_ERRORS * error:
        return Matched(dict(start), "start", gain, error, np.nan, steps)
    if labels is None:
        return Matched(near, "near", gain, error, np.nan, steps)
    far = descend(scene, near, steps, far=True)
    at_far = scene.latents(far)
    confidence = scene.confidence(at_far) - scene.confidence(at_start) if np.isfinite(at_far).all() else -np.inf
    if confidence < -LOST_CONFIDENCE:
        return Matched(near, "near", gain, error, confidence, 2 * steps)
    return Matched(far, "far", gain, error, confidence, 2 * steps)


def choose(codes: np.ndarray, seed: int) -> np.ndarray:
    """Cells to fit on: about 1,000, and 200 of each batch where there are many batches."""
    rng, batches = np.random.default_rng(seed), np.unique(codes)
    most = max(CELLS // len(batches), CELLS_OF_BATCH)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(codes == c))[:most] for c in batches]))


def step_size(codes: np.ndarray) -> int:
    """Cells in a step: more where there are many batches, so that each is seen, up to a limit that keeps a step cheap."""
    return min(max(CELLS_IN_STEP, CELLS_IN_STEP_OF_BATCH * len(np.unique(codes))), MOST_IN_STEP)


def mean_and_error(difference: np.ndarray) -> tuple[float, float]:
    """Mean of paired differences and its standard error."""
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


@dataclass(frozen=True)
class Draw:
    """What a step compares: cells and the atlas points drawn for them, (size,) on the device, and which with which."""

    cells: Tensor
    points: Tensor
    pairs: Pairs


def draw(scene: Scene, latents: np.ndarray, steps: int, rng: np.random.Generator, *, far: bool) -> list[Draw]:
    """Cells of the next steps, a cluster near each of them, and an atlas point from it."""
    cluster, n = scene.atlas.cluster, len(scene.codes)
    index = np.stack([rng.permutation(n)[: step_size(scene.codes)] for _ in range(steps)])
    shares = scene.clusters(latents)
    near = shares.argmax(axis=1)[index]
    if far:
        reached = np.cumsum(shares, axis=1)
        chance = rng.random(index.shape) * reached[index, -1]
        near = np.stack([(reached[i] < c[:, None]).sum(axis=1) for i, c in zip(index, chance, strict=True)])
    order, count = np.argsort(cluster, kind="stable"), np.bincount(cluster)
    first = np.cumsum(count) - count
    points = order[first[near] + (rng.random(index.shape) * count[near]).astype(np.int64)]
    strata = scene.codes[index].astype(np.int64) * len(count) + near
    like = scene.cells.product
    there = (as_tensor(array).to(like.device) for array in (index, points))
    return [Draw(c, p, pairs_within(s, like)) for c, p, s in zip(*there, strata, strict=True)]


def descend(scene: Scene, start: Mapping[str, Tensor], steps: int, *, far: bool) -> Rows:
    """Minimise the energy distance within clusters plus the penalty of the columns: one of the two fits.

    Every 25 steps the clusters that the cells are now near are looked up again (on the CPU).
    """
    config, n, points = scene.config, len(scene.codes), scene.atlas.points
    rng = np.random.default_rng(config.seed)
    scale = float(np.linalg.norm(points - points.mean(axis=0), axis=1).mean()) or 1.0
    strength = STRENGTH * n / (n + HALF_STRENGTH_CELLS)
    there = as_tensor(points).to(scene.cells.product)
    rows = {name: row.detach().clone().requires_grad_() for name, row in start.items()}
    adam = Adam(rows)
    with step(f"fitting the new columns, {'far' if far else 'near'}", steps) as advance:
        for first in range(0, steps, UPDATE_EVERY):
            latents = scene.latents({name: row.detach() for name, row in rows.items()})
            if not np.isfinite(latents).all():
                break
            draws = draw(scene, latents, min(UPDATE_EVERY, steps - first), rng, far=far)
            for number, drawn in enumerate(draws, first + 1):
                with fast_products(there.device, exact=False):
                    moved, _ = scene.model.encode(scene.cells.take(drawn.cells), {**scene.fixed, **rows})
                    energy = stratified_energy(moved, there[drawn.points], drawn.pairs)
                    loss = energy / scale + column_penalty(rows, scene.prior) / strength
                    gradients = torch.autograd.grad(loss, list(rows.values()), allow_unused=True)
                adam.step(gradients, cosine(config.learning_rate, number, steps))
                advance(1)
    return {name: row.detach() for name, row in rows.items()}

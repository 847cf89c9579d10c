"""Encoder columns that bring a query's latents onto the atlas, whatever the query's composition; and whether to keep them.

Only posterior means are needed, so no gene is touched: a step costs the encoder on a few hundred cells. The reference's
part is its stored latents. Sources: :mod:`scgraft.objective`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scgraft.adam import Adam, cosine
from scgraft.model import embed_cells
from scgraft.neighbors import nearest
from scgraft.objective import (
    Atlas,
    column_penalty,
    energy_distance,
    matched_weights,
    mixture_log_density,
    mixture_tensors,
)
from scgraft.values import FitConfig

if TYPE_CHECKING:
    from scgraft.nn.scanvae import Scanvae
    from scgraft.nn.vae import Cells, Vae

# Weights of the energy distance against the prior on the columns, gentle first; a query of few cells gets less.
STRENGTHS = (1e4, 1e5)
HALF_STRENGTH_CELLS = 100
STEPS, CELLS_PER_STEP, POINTS_PER_BATCH = 75, 256, 128
UPDATE_EVERY, VOTERS = 25, 30
MATCHED_CELLS = 10_000
STANDARD_ERRORS = 2.0
# As many draws from the atlas alone as make it unlikely (1 in 20) that the query's distance beats them all by chance.
NULL_DRAWS, TESTED_CELLS = 19, 128

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Matched:
    """Encoder columns that were kept, and by how much they explain the query better than the start did.

    `strength` is None where the start was kept. `gain` is the mean log-density of the cells' latents under the atlas
    minus that at the start, in nats per cell, with its standard error; of the best fit where none was kept.
    """

    rows: Rows
    strength: float | None
    gain: float
    gain_error: float
    steps: int
    shifted: bool = True

    @property
    def reason(self) -> str:
        """What was kept and why, in a sentence."""
        if not self.shifted:
            return "The start was kept: the latents are distributed as atlas cells of the same composition are."
        numbers = f"{self.gain:.3g} ± {self.gain_error:.2g} nats per cell"
        if self.strength is None:
            return f"The start was kept: the fit would change the latents' log-density in the atlas by {numbers}."
        return f"The fitted columns were kept: they change the latents' log-density in the atlas by {numbers}."


@dataclass(frozen=True)
class Scene:
    """What does not change while encoder columns are matched: cells with their batch codes (n,), atlas, column prior."""

    model: Vae | Scanvae
    cells: Cells
    codes: np.ndarray
    atlas: Atlas
    fixed: Mapping[str, Tensor]
    prior: Mapping[str, tuple[Tensor, Tensor]]
    scale: float

    def latents(self, rows: Mapping[str, Tensor]) -> np.ndarray:
        """Posterior means (n, d) of all cells."""
        return embed_cells(self.model, self.cells, {**self.fixed, **rows})[0]

    def shifted(self, rows: Mapping[str, Tensor], rng: np.random.Generator) -> bool:
        """Whether the latents differ from atlas cells of the same composition: the two-sample energy test, at 5 %."""
        latents, weights = torch.from_numpy(self.latents(rows)), self.weights(rows)
        found = np.zeros(1 + NULL_DRAWS)
        for code, cumulative in weights.items():
            own = rng.permutation(np.flatnonzero(self.codes == code))[:TESTED_CELLS]
            n = len(own)
            if n < 2:
                continue
            for i in range(len(found)):
                one = latents[torch.from_numpy(own)] if i == 0 else self.draw(cumulative, n, rng)
                found[i] += n * float(energy_distance(one, self.draw(cumulative, n, rng)))
        return bool(found[0] > found[1:].max())

    def draw(self, cumulative: np.ndarray, n: int, rng: np.random.Generator) -> Tensor:
        """Atlas points (n, d) drawn with replacement."""
        drawn = np.searchsorted(cumulative, rng.random(n) * cumulative[-1])
        return torch.as_tensor(self.atlas.points[np.minimum(drawn, len(cumulative) - 1)])

    def weights(self, rows: Mapping[str, Tensor]) -> dict[int, np.ndarray]:
        """Cumulative probabilities of the atlas's points for each batch, in the batch's own composition."""
        label = self.atlas.label
        found = nearest(self.atlas.points, self.latents(rows), k=min(VOTERS, len(label))).indices
        votes = np.zeros((len(found), label.max() + 1))
        np.add.at(votes, (np.repeat(np.arange(len(found)), found.shape[1]), label[found].ravel()), 1 / found.shape[1])
        return {c: np.cumsum(matched_weights(votes[self.codes == c], label)) for c in np.unique(self.codes)}


def match_columns(
    model: Vae | Scanvae,
    cells: Cells,
    codes: np.ndarray,
    atlas: Atlas,
    *,
    start: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    prior: Mapping[str, tuple[Tensor, Tensor]],
    config: FitConfig,
) -> Matched:
    """Fit encoder columns in growing strength, and keep the fit, or the start, that the atlas explains best.

    Parameters
    ----------
    model, cells
        The frozen model and the cells of the fit, counts not needed.
    codes
        Batch of each cell, (n,).
    atlas
        Of the reference.
    start
        Encoder rows to fit, by slot name.
    fixed
        The other new rows.
    prior
        Mean and variance of the rows by slot name, from :func:`scgraft.slots.column_prior`.
    config
        `learning_rate`, `max_steps`, `epochs` and `seed` are used.

    Notes
    -----
    Nothing is fitted where a two-sample test finds no difference between the query and atlas cells of its composition. The
    gentle fit is kept unless the mean log-density of the latents under the atlas mixture falls by more than two standard
    errors over the cells; the strong one only where it rises by more than two. The density is not what is minimised: a
    fit that spreads one cell type over the atlas, or drags cells through empty space, lowers it.
    """
    if len(codes) > MATCHED_CELLS:
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(codes))[:MATCHED_CELLS])
        cells, codes = cells.take(torch.from_numpy(chosen).to(cells.product.device)), codes[chosen]
    points = atlas.points
    scale = float(np.linalg.norm(points - points.mean(axis=0), axis=1).mean()) or 1.0
    scene = Scene(model, cells, codes, atlas, fixed, prior, scale)
    tensors = mixture_tensors(atlas.mixture, cells.product)

    def density(rows: Mapping[str, Tensor]) -> np.ndarray:
        latents = torch.as_tensor(scene.latents(rows)).to(cells.product)
        return mixture_log_density(latents, tensors).double().cpu().numpy()

    at_start = kept_density = density(start)
    rows = kept = dict(start)
    if not scene.shifted(start, np.random.default_rng(config.seed)):
        return Matched(kept, None, 0.0, 0.0, 0, shifted=False)
    total, strength, steps, gain, error = steps_of(config, len(codes)), None, 0, 0.0, 0.0
    for candidate in STRENGTHS:
        rows = descend(scene, rows, candidate * len(codes) / (len(codes) + HALF_STRENGTH_CELLS), total, config)
        now, steps = density(rows), steps + total
        if not np.isfinite(now).all():
            break
        change, doubt = mean_and_error(now - kept_density)
        # The gentle fit has lowered a distance that is really there: it must not cost density. The strong one must earn it.
        kept_it = change > (STANDARD_ERRORS if strength else -STANDARD_ERRORS) * doubt
        if kept_it or steps == total:
            gain, error = mean_and_error(now - at_start)
        if not kept_it:
            break
        kept, strength, kept_density = rows, candidate, now
    return Matched(kept, strength, gain, error, steps)


def steps_of(config: FitConfig, n: int) -> int:
    """Steps for each strength."""
    total = min(STEPS, config.max_steps)
    return total if config.epochs is None else min(total, config.epochs * -(-n // CELLS_PER_STEP))


def mean_and_error(difference: np.ndarray) -> tuple[float, float]:
    """Mean of paired differences and its standard error; a single cell has no error of its own, so it proves nothing."""
    if len(difference) < 2:
        return float(difference.mean()), float("inf") if difference.any() else 0.0
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def descend(scene: Scene, start: Mapping[str, Tensor], strength: float, total: int, config: FitConfig) -> Rows:
    """Minimise the matched energy distance plus the penalty of the columns over `strength`."""
    rng = np.random.default_rng(config.seed)
    rows = {name: row.detach().clone().requires_grad_() for name, row in start.items()}
    device = scene.cells.product.device
    adam, weights = Adam(rows), {}
    for step in range(1, total + 1):
        if (step - 1) % UPDATE_EVERY == 0:
            if not all(bool(row.isfinite().all()) for row in rows.values()):
                break
            weights = scene.weights({name: row.detach() for name, row in rows.items()})
        index = rng.permutation(len(scene.codes))[:CELLS_PER_STEP]
        latents, _ = scene.model.encode(scene.cells.take(torch.from_numpy(index).to(device)), {**scene.fixed, **rows})
        loss = column_penalty(rows, scene.prior) / strength
        for code in np.unique(scene.codes[index]):
            own = np.flatnonzero(scene.codes[index] == code)
            if len(own) < 2:
                continue
            points = scene.draw(weights[code], POINTS_PER_BATCH, rng).to(latents)
            energy = energy_distance(latents[torch.from_numpy(own).to(device)], points)
            loss = loss + energy / scene.scale * (len(own) / len(index))
        gradients = torch.autograd.grad(loss, list(rows.values()), allow_unused=True)
        adam.step(gradients, cosine(config.learning_rate, step, total))
    return {name: row.detach() for name, row in rows.items()}

"""A graft, the settings of its fit, and the record of what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from scgraft.values.names import BATCH

if TYPE_CHECKING:
    from scgraft.values.reference import BaseId

GRAFT_FORMAT = 1


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit; the defaults suit queries from one cell to millions.

    Parameters
    ----------
    objective
        ``"match"``: the encoder's columns bring the latents onto the atlas, whatever the query's composition, where that is
        better than doing nothing; the other columns reconstruct the counts. ``"atlas"``: the ELBO with the reference's
        own stored posterior as prior. ``"elbo"``: the published objective, also where the reference stores no latents.
    labels
        obs column of the reference whose votes say how far ``"match"`` may reach; None for that of the registry.
    start
        Where new columns start: ``"mean"`` of the reference's columns, ``"zero"``, or ``"random"`` as scvi-tools.
    epochs
        Passes over the query at most; None runs until the held-out loss stops falling; 0 keeps the start (zero-shot).
    max_steps
        Optimiser steps at most.
    batch_size
        Cells in a step.
    learning_rate
        Adam's, falling along a cosine.
    kl_weight
        Weight of the KL term.
    fit_cells
        Cells of each new batch used for the fit at most; None uses all of them.
    holdout
        Share of the cells held out to decide convergence.
    patience
        Evaluations without improvement before the fit stops.
    seed
        Seed of everything random in the fit.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"``.
    progress
        Show a progress bar.
    force
        Train even where the latent cannot move, for the sake of decoded expression.
    """

    objective: str = "match"
    labels: str | None = None
    start: Literal["mean", "zero", "random"] = "mean"
    epochs: int | None = None
    max_steps: int = 100
    batch_size: int = 128
    learning_rate: float = 0.05
    kl_weight: float = 1.0
    fit_cells: int | None = 1000
    holdout: float = 0.1
    patience: int = 5
    seed: int = 0
    device: str = "auto"
    progress: bool = False
    force: bool = False


@dataclass(frozen=True)
class FitRecord:
    """What happened in a fit: the receipt of the surgery.

    Parameters
    ----------
    config
        The settings.
    trained
        False when no training was done, with the `reason`.
    reason
        Why the fit stopped, or was skipped.
    objective
        What was minimised; ``"elbo"`` where another was asked for and the reference stores no posterior.
    reach
        Which fit of the columns that move the latent was kept by ``"match"``: ``"start"`` (none was better), ``"near"``
        (within clusters of the atlas) or ``"far"`` (across neighbouring ones); None for other objectives.
    gain, gain_error
        Mean log-density of the latents under the atlas, near fit minus start, in nats per cell, and its standard error.
    confidence
        Mean share of the vote for a cell's label, far fit minus start; None where the far fit was not tried.
    steps, seconds
        Optimiser steps and wall seconds.
    n_cells, n_fit_cells
        Cells of the query, and how many of them were used for the fit.
    loss
        Held-out loss at each evaluation as (step, nats per cell).
    n_parameters
        Numbers that were trained.
    reference_unchanged
        sha256 of the reference's weights before and after the fit; equal by construction, and checked.
    moved
        Mean distance that the latent of each query batch moved from the start, in units of the latent's spread.
    versions
        Versions of scgraft, torch and numpy.
    """

    config: FitConfig
    trained: bool
    reason: str
    objective: str = "elbo"
    reach: Literal["start", "near", "far"] | None = None
    gain: float | None = None
    gain_error: float | None = None
    confidence: float | None = None
    steps: int = 0
    seconds: float = 0.0
    n_cells: int = 0
    n_fit_cells: int = 0
    loss: tuple[tuple[int, float], ...] = ()
    n_parameters: int = 0
    reference_unchanged: tuple[str, str] = ("", "")
    moved: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graft:
    """New columns for a query's new batches: all that a mapping adds to the reference.

    Parameters
    ----------
    base
        The reference that it was made for.
    levels
        New levels by covariate, in column order.
    rows
        New columns by slot name, levels along the slot's axis, float32.
    record
        How it was fitted.
    format
        Version of the saved format.
    """

    base: BaseId
    levels: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, np.ndarray]
    record: FitRecord
    format: int = GRAFT_FORMAT

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the new batches, in column order."""
        return tuple(self.levels.get(BATCH, ()))

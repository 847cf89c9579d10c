"""A graft, the settings of its fit, and the record of what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from scgraft.numerics.sealed import seal_fields
from scgraft.values.names import BATCH
from scgraft.values.options import at_least, device_name, one_of, within
from scgraft.values.shown import Rows, as_html, as_text, fields_as_html, fields_as_text, some

if TYPE_CHECKING:
    from scgraft.values.reference import BaseId

GRAFT_FORMAT = 1

Objective = Literal["match", "atlas", "elbo"]
Start = Literal["mean", "zero", "random"]


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit; the defaults suit queries from one cell to millions.

    Parameters
    ----------
    objective
        What the new columns are fitted to:

        - ``"match"`` (default): the query's cells should lie where the reference's cells of the same kind lie. Use it for
          labels and integration. It works whatever the query's composition is, and is undone where it is shown to hurt.
        - ``"atlas"``: the evidence lower bound (ELBO), with the latents of the reference as prior. Use it to stay close to the
          published method while the query is drawn to where the reference has cells.
        - ``"elbo"``: the published ELBO. Use it for parity with scvi-tools. It is taken by itself where the reference stores
          no latents.
    labels
        obs column of the reference that tells ``"match"`` whether its far fit blurs the labels; None takes that of the
        registry.
    start
        Value of new columns before the fit: ``"mean"`` of the reference's columns, ``"zero"``, or ``"random"`` as in
        scvi-tools.
    epochs
        Passes over the query's cells at most. None sets no limit, so that `max_steps` decides; 0 keeps the start (zero-shot).
    max_steps
        Optimiser steps at most. Where dispersions are all that the decoder has of a batch (scPoli, up to five batches),
        one step of Newton's method stands for sixteen.
    batch_size
        Cells in a step.
    learning_rate
        Learning rate of Adam at the start; it falls along a cosine.
    kl_weight
        Weight of the KL term; ``"match"`` has none.
    fit_cells
        Cells of each new batch used for the fit at most; None uses all of them.
    holdout
        Share of the cells that is held out to measure the loss.
    patience
        Evaluations of the held-out loss without improvement before the fit stops. There is one every 20 steps, so with the
        default of 100 steps the fit never stops early; it matters with more steps.
    seed
        Seed of everything random in the fit.
    device
        Where torch computes: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. ``map_query`` uses it in
        every step, not the fit alone.
    progress
        Show progress bars; None shows them on a terminal and in a notebook, and nowhere else.
    force
        Train even where the new columns cannot move the latent, because only decoded expression depends on them.

    Raises
    ------
    BadOption
        A value that the option cannot have.
    """

    objective: Objective = "match"
    labels: str | None = None
    start: Start = "mean"
    epochs: int | None = None
    max_steps: int = (
        100  # the bound is reached within 25 (docs/performance.md); 400 took twice as long (docs/trust-evidence.md)
    )
    batch_size: int = 128  # the default of scvi-tools
    learning_rate: float = (
        0.05  # a hundred steps suffice with it (docs/performance.md); other rates are not in the tables
    )
    kl_weight: float = 1.0
    fit_cells: int | None = (
        1000  # of each batch: 0.1 nats of 1,078 from using all, and no accuracy (docs/performance.md)
    )
    holdout: float = 0.1  # as scvi-tools validates on a tenth
    patience: int = 5  # evaluations, a hundred steps; chosen by eye, not measured
    seed: int = 0
    device: str = "auto"
    progress: bool | None = None
    force: bool = False

    def __post_init__(self) -> None:
        one_of("objective", self.objective, get_args(Objective))
        one_of("start", self.start, get_args(Start))
        device_name(self.device)
        for name, least in (("epochs", 0), ("max_steps", 0), ("batch_size", 1), ("fit_cells", 1), ("patience", 1)):
            at_least(name, getattr(self, name), least)
        at_least("seed", self.seed, 0)
        at_least("kl_weight", self.kl_weight, 0, whole=False)
        at_least("learning_rate", self.learning_rate, 0, whole=False)
        within("holdout", self.holdout, 0, 0.9)  # the fit needs cells, too

    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class FitRecord:
    """What happened in a fit: the receipt of the surgery.

    Parameters
    ----------
    config
        The settings.
    trained
        False when no training was done; `reason` then says why.
    reason
        Why the fit stopped or was skipped, in a sentence.
    objective
        The objective that was minimised: the one in `config`, or ``"elbo"`` where the reference stores no latents.
    reach
        Which of its fits the objective ``"match"`` kept: ``"start"`` (none: it was undone), ``"near"`` (cells compared with
        their own cluster of the reference) or ``"far"`` (with neighbouring clusters too); None for other objectives.
    gain, gain_error
        Change of the cells' mean log-density under the reference's latents by the near fit, in nats per cell, and its
        standard error. Below -2 standard errors the fit is undone.
    confidence
        Change of the mean share of the vote that a cell's label gets, by the far fit. Below -0.02 the far fit is undone. None
        where it was not tried.
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

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


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

    def __post_init__(self) -> None:
        seal_fields(self)

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the new batches, in column order."""
        return tuple(self.levels.get(BATCH, ()))

    def _shown(self) -> tuple[str, Rows]:
        numbers = sum(int(np.size(row)) for row in self.rows.values())
        return f"Graft onto {self.base.family} {self.base.title}", [
            ("batches", some(self.batches) or "none"),
            ("numbers", f"{numbers:,} in {len(self.rows)} arrays: {some(self.rows)}"),
            ("trained", "yes" if self.record.trained else "no"),
            ("what happened", self.record.reason),
        ]

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())

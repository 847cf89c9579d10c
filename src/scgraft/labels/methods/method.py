"""The record of a label-transfer method: what it may look at, what it answers, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scgraft.errors import BadOption
from scgraft.numerics.sealed import seal_fields
from scgraft.reference.cells import reference_classes
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    from scgraft.numerics.index import Near
    from scgraft.values.query import Query
    from scgraft.values.reference import Latent, Reference

TOLERANCE = 1e-3  # of the sum of a cell's shares: a hundred float32 roundings of a thousand classes, chosen by eye


@dataclass(frozen=True)
class Ballot:
    """What a method may look at when it votes on the cells of a query, for one label column.

    Parameters
    ----------
    reference, key
        The reference, and the column of its obs.
    latent
        The query's cells in the latent of the reference, (n, d).
    near
        Nearest reference cells of each query cell; None where the reference holds no cells.
    query
        The same cells with raw counts (n, G) in the reference's genes; None where the caller has none.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    reference: Reference
    key: str
    latent: Latent
    near: Near | None = None
    query: Query | None = None
    device: str = "auto"

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        return reference_classes(self.reference, self.key)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that reference cells have, in the order of their codes."""
        return tuple(self._classes[0].tolist())

    @property
    def codes(self) -> np.ndarray:
        """Class of each reference cell as a position in `classes`, -1 for a cell without one."""
        return self._classes[1]


@dataclass(frozen=True)
class Vote:
    """What a method says of the query's cells.

    Parameters
    ----------
    classes
        Names of the classes, in the order of the columns.
    share
        Share of the vote of every class, (n, C) float: not negative, and each cell's shares add up to 1, or are all 0 where the
        method says nothing of a cell.

    Raises
    ------
    BadOption
        The shares are not such numbers.
    """

    classes: tuple[str, ...]
    share: np.ndarray

    def __post_init__(self) -> None:
        share = np.asarray(self.share)
        if share.ndim != 2 or share.shape[1] != len(self.classes) or len(set(self.classes)) != len(self.classes):
            raise BadOption(
                f"A vote has one column for each of its {len(self.classes)} different classes, not the shape {share.shape}."
            )
        total = share.sum(axis=1)
        if not (
            np.isfinite(share).all() and (share >= 0).all() and ((np.abs(total - 1) < TOLERANCE) | (total == 0)).all()
        ):
            raise BadOption(
                "The shares of a vote are numbers from 0 to 1 that add up to 1 for each cell (or are all 0). Normalise them."
            )
        seal_fields(self)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


class CastVote(Protocol):
    """From a ballot to a vote; None where the method cannot vote on this column of this reference."""

    def __call__(self, ballot: Ballot) -> Vote | None: ...


@dataclass(frozen=True)
class LabelMethod:
    """A label-transfer method.

    Parameters
    ----------
    name
        What it is asked for by.
    sentence
        How it is done, in words with its source: ``Labels.method`` of its labels.
    vote
        Its vote on the cells of a ballot. It depends on each cell alone, so that a query may be voted on piece by piece.
    held_out
        Whether its vote comes from `ballot.reference` alone, so that on batches which that reference lacks it is as good as on a query:
        then it can be calibrated. False for what was trained with the labels of all of the reference's cells, as a model's own
        classifier: it knows the answers.
    """

    name: str
    sentence: str
    vote: CastVote
    held_out: bool = True

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html

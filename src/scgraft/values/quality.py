"""Lines of a check and of a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scgraft.numerics.sealed import seal_fields
from scgraft.values.shown import Rows, as_html, as_text, cut, fields_as_html, fields_as_text

Grade = Literal["ok", "repaired", "warning", "stop"]
Light = Literal["grey", "green", "amber", "red"]  # grey: there is nothing to compare with


@dataclass(frozen=True)
class Finding:
    """One line of a check: what was looked at, how it is, a sentence, and the next action ("" when there is none)."""

    name: str
    grade: Grade
    sentence: str
    action: str = ""
    values: Mapping[str, object] | None = None

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Check:
    """Pre-flight of a query on a reference."""

    findings: tuple[Finding, ...]

    @property
    def grade(self) -> Grade:
        """The worst grade."""
        order: tuple[Grade, ...] = ("ok", "repaired", "warning", "stop")
        return max((f.grade for f in self.findings), key=order.index, default="ok")

    def _shown(self) -> tuple[str, Rows]:
        lines = [
            (f"{f.grade}: {f.name}", f"{f.sentence}{f' -> {f.action}' if f.action else ''}") for f in self.findings
        ]
        return f"Check: {self.grade}", [(name, cut(text)) for name, text in lines]

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())


@dataclass(frozen=True)
class Measure:
    """One line of a mapping's quality: a number beside its null distribution, and what to do about it."""

    name: str
    light: Light
    value: float
    null: tuple[float, ...]
    sentence: str
    action: str = ""

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Verdict:
    """Whether the mapping was good: a light, a sentence, and the measures behind them.

    Parameters
    ----------
    light, sentence, measures
        The verdict, and its lines.
    distance
        Of each cell to the nearest cluster of the reference, in its standard deviations, (n,); small is well mapped.
    preservation
        Of each query cluster, by its number: 1 where its neighbourhoods survive in the latent, 0 where nothing of it is
        left, NaN for a single cell.
    """

    light: Light
    sentence: str
    measures: tuple[Measure, ...]
    distance: np.ndarray | None = None
    preservation: np.ndarray | None = None

    def __post_init__(self) -> None:
        seal_fields(self)

    def _shown(self) -> tuple[str, Rows]:
        lines = [
            (f"{m.light}: {m.name}", f"{m.sentence}{f' -> {m.action}' if m.action else ''}") for m in self.measures
        ]
        return f"Verdict: {self.light}. {self.sentence}", lines

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())

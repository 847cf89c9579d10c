"""A number beside the range of the same number in held-out batches, in words: no more is said than what a reader sees there."""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

import numpy as np

from scgraft.values.quality import Light, Measure

LESS_IS_BETTER = ("distance", "reconstruction", "ambient")  # of what is compared with held-out batches; else more is


def green(measures: tuple[Measure, ...]) -> str:
    """What a green light says: no more than what its lines show, as a limit is wider than the range of the batches seen."""
    compared = [m for m in measures if m.light == "green" and np.isfinite(m.null).any()]
    if not compared:
        return (
            "Nothing was found that speaks against this mapping; but no batches of the reference could be held out and mapped, to "
            "compare it with."
        )
    outside = [m.name for m in compared if outside_of(m.name, m.value, m.null)]
    said = "of the reference's own batches when they are held out and mapped"
    if not outside:
        return f"You can use this mapping: its numbers lie in the range {said}."
    names = " and ".join(filter(None, (", ".join(outside[:-1]), outside[-1])))
    return f"You can use this mapping: its numbers lie in or near the range {said}; outside of it, but within the limit: {names}."


def outside_of(name: str, value: float, null: Sequence[float]) -> str:
    """How a number is worse than that of each held-out batch ("more" or "less" than all of them), as shown; "" where it is not."""
    value, finite = round(value, 2), [round(v, 2) for v in null if np.isfinite(v)]
    if name in LESS_IS_BETTER:
        return "more" if finite and value > max(finite) else ""
    return "less" if finite and value < min(finite) else ""


def range_of(null: tuple[float, ...], said: str, outside: str = "") -> str:
    """The same number of the held-out batches, in the format that the sentence has for its own, and whether it is `outside`."""
    finite = [v for v in null if np.isfinite(v)]
    if not finite:
        return "."
    shown = next(spec for _, name, spec, _ in Formatter().parse(said) if name == "value") or ""
    end = f"; this is {outside} than any of them has, but within the limit)." if outside else ")."
    return f" (held-out batches of the reference: {min(finite):{shown}} to {max(finite):{shown}}{end}"


def compared(name: str, light: Light, value: float, null: tuple[float, ...], said: str, action: str) -> Measure:
    """A line with the number, that of the held-out batches, and what to do where it is not green."""
    outside = outside_of(name, value, null) if light == "green" else ""
    text = said.format(value=value) + range_of(null, said, outside)
    return Measure(name, light, value, null, text, "" if light == "green" else action)

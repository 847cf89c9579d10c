"""Checks of options where they are given, so that a wrong one never runs as something else."""

from __future__ import annotations

import re
from collections.abc import Collection

from scgraft.errors import BadOption


def within(name: str, value: float, low: float, high: float, *, open_ends: bool = False) -> None:
    """Refuse a number outside [low, high], or outside (low, high)."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value < high if open_ends else low <= value <= high):
        between = f"between {low:g} and {high:g}" + (", neither of them" if open_ends else "")
        raise BadOption(f"{name} is a number {between}, not {value!r}.")


def at_least(name: str, value: float | None, least: float, *, whole: bool = True) -> None:
    """Refuse a number below `least`, or one that is not whole where it must be; None passes."""
    if value is None:
        return
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < float("inf"):
        raise BadOption(f"{name} is a {'whole ' if whole else ''}number of at least {least:g}, not {value!r}.")


def one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Refuse a word that is not on the list."""
    if value not in allowed:
        raise BadOption(f"{name} is {', '.join(map(repr, allowed))}, not {value!r}.")


def device_name(value: object) -> str:
    """Refuse what is no name of a device that torch computes on: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1"."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise BadOption(f"device is 'auto', 'cpu', 'cuda' or 'cuda:0' (its number), not {value!r}.")
    return value

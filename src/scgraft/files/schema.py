"""What a JSON document must look like: small checks that are put together, one for each document, in its own module.

A check takes a value and its place, and raises :class:`Unfit` with the place where the value is not as it must be.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import types
from collections.abc import Callable, Mapping, Set
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from scgraft.files.text import visible

Check = Callable[[Any, str], None]
# Whole numbers beyond are not counts of anything, and no array or float holds them.
MAX_WHOLE = 2**63 - 1


class Unfit(ValueError):
    """A value is not what its document must hold there."""


def anything(value: Any, place: str) -> None:
    """Whatever it is."""


def text(value: Any, place: str) -> None:
    """A text that any file can hold: without halves of a character (surrogates)."""
    if not isinstance(value, str):
        raise Unfit(f"{place} is {_kind(value)}; a text was expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unfit(f"{place} holds {visible(repr(value))}, which is not text") from error


def flag(value: Any, place: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise Unfit(f"{place} is {_kind(value)}; true or false was expected")


def whole(value: Any, place: str) -> None:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_WHOLE:
        raise Unfit(f"{place} is {_kind(value)}; a whole number was expected")


def number(low: float = float("-inf"), high: float = float("inf")) -> Check:
    """A number from `low` to `high`; NaN only where there are no bounds."""

    def check(value: Any, place: str) -> None:
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or (isinstance(value, int) and abs(value) > MAX_WHOLE)
        ):
            raise Unfit(f"{place} is {_kind(value)}; a number was expected")
        bounded = (low, high) != (float("-inf"), float("inf"))
        if bounded and not low <= value <= high:
            raise Unfit(f"{place} is {value}; a number from {low} to {high} was expected")

    return check


def maybe(check: Check) -> Check:
    """What `check` lets through, or nothing (null)."""
    return lambda value, place: None if value is None else check(value, place)


def items(check: Check, n: int | None = None) -> Check:
    """A list of such values, `n` of them where that is given."""

    def inner(value: Any, place: str) -> None:
        if not isinstance(value, list) or (n is not None and len(value) != n):
            raise Unfit(f"{place} is {_kind(value)}; a list{'' if n is None else f' of {n}'} was expected")
        for i, item in enumerate(value):
            check(item, f"{place}[{i}]")

    return inner


def distinct(value: Any, place: str) -> None:
    """A list of texts of which no two are the same."""
    items(text)(value, place)
    if len(set(value)) != len(value):
        raise Unfit(f"{place} has a name twice")


def table(check: Check) -> Check:
    """Such values by names of any kind."""

    def inner(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise Unfit(f"{place} is {_kind(value)}; a table of names was expected")
        for name, item in value.items():
            text(name, f"a name in {place}")
            check(item, f"{place}.{visible(name)}")

    return inner


def record(fields: Mapping[str, Check], *, optional: Set[str] = frozenset(), more: bool = False) -> Check:
    """An object that has exactly these entries, but for those of `optional`, or others too where `more` is on."""

    def inner(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise Unfit(f"{place} is {_kind(value)}; an object was expected")
        missing, unknown = sorted(fields.keys() - value.keys() - optional), sorted(value.keys() - fields.keys())
        if missing or (unknown and not more):
            wrong = (
                f"lacks {', '.join(missing)}" if missing else f"has the unknown {', '.join(map(visible, unknown[:5]))}"
            )
            raise Unfit(f"{place} {wrong}")
        for name in fields.keys() & value.keys():
            fields[name](value[name], f"{place}.{name}")

    return inner


def one_of(*values: Any) -> Check:
    """One of these values."""

    def inner(value: Any, place: str) -> None:
        if not any(value is v or (type(value) is type(v) and value == v) for v in values):
            raise Unfit(f"{place} is {_kind(value)}; one of {', '.join(map(repr, values))} was expected")

    return inner


def either(*checks: Check) -> Check:
    """What any of the checks lets through."""

    def inner(value: Any, place: str) -> None:
        faults = []
        for check in checks:
            try:
                return check(value, place)
            except Unfit as error:
                faults.append(error)
        raise faults[0]

    return inner


def of(kind: Any, *, more: bool = False) -> Check:
    """The check of a type as it is written in a frozen value: a dataclass as its entries, a tuple as a list.

    An entry with a default may be missing: an earlier version did not know it. With `more`, every entry must be there, and
    those of a later version may be, too.
    """
    if kind is None or kind is type(None):
        return one_of(None)
    plain = {str: text, bool: flag, int: whole, float: number(), object: anything}
    if kind in plain:
        return plain[kind]
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = dataclasses.fields(kind)
        known = {field.name: of(hints[field.name]) for field in fields}
        unset = dataclasses.MISSING
        later = {f.name for f in fields if f.default is not unset or f.default_factory is not unset}
        return record(known, optional=set() if more else later, more=more)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return one_of(*arguments)
    if origin in (Union, types.UnionType):
        return either(*map(of, arguments))
    if origin is tuple and arguments[1:] == (...,):
        return items(of(arguments[0]))
    if origin is tuple:
        return each(*map(of, arguments))
    if origin is collections.abc.Mapping and arguments[0] is str:
        return table(of(arguments[1]))
    raise TypeError(f"no check for {kind}")


def each(*checks: Check) -> Check:
    """A list whose entries are let through one by one, each by its own check."""

    def inner(value: Any, place: str) -> None:
        if not isinstance(value, list) or len(value) != len(checks):
            raise Unfit(f"{place} is {_kind(value)}; a list of {len(checks)} was expected")
        for i, (check, item) in enumerate(zip(checks, value, strict=True)):
            check(item, f"{place}[{i}]")

    return inner


def parse(content: str | bytes, check: Check, place: str) -> Any:
    """The value of a JSON text that `check` lets through.

    Raises
    ------
    Unfit
        It is not JSON, nested too deeply, or not what it must be.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{place} is not a JSON document ({type(error).__name__})") from error
    check(value, place)
    return value


def _kind(value: Any) -> str:
    return {dict: "an object", type(None): "null"}.get(type(value), visible(repr(value))[:40])

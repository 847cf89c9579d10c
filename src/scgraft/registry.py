"""An open registry: records of one kind by their name, of this package, of installed packages, and of a running notebook.

A record of this package is a constant of a module in one folder. Another package names one in an entry point, whose name is that of
the record; a notebook registers one. The package's own come first, so no other package can change what a name means.

An entry point is loaded, which runs code of the package that brings it, when its name is asked for, or when every record is: not
when the registry is imported, and not for names that scgraft or the notebook has.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Generic, Protocol, TypeVar

from scgraft.errors import BadOption


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """What it is asked for by."""


R = TypeVar("R", bound=Named)


@dataclass(frozen=True, eq=False)
class Registry(Generic[R]):
    """Records of one kind by their name.

    Parameters
    ----------
    kind
        Class of the records.
    what
        What one is called in a sentence: ``"model family"``.
    group
        Entry points of this group name records of other packages.
    home, constant
        The package (its import path) whose modules hold a record each, and the constant that it is.
    registered
        Those of this process: what :meth:`register` adds to.
    """

    kind: type[R]
    what: str
    group: str
    home: str
    constant: str
    registered: dict[str, R] = field(default_factory=dict)

    @cached_property
    def own(self) -> dict[str, R]:
        """Records of this package."""
        found = {}
        for module in iter_modules(import_module(self.home).__path__):
            record = getattr(import_module(f"{self.home}.{module.name}"), self.constant, None)
            if isinstance(record, self.kind):
                found[record.name] = record
        return found

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point.name not in self.own:
                found.setdefault(point.name, []).append(point)
        return found

    @cached_property
    def _loaded(self) -> dict[str, R]:
        return {}

    def names(self) -> list[str]:
        """Every name that is known, sorted; nothing is loaded for it."""
        return sorted({*self.own, *self.registered, *self._points})

    def get(self, name: str) -> R | None:
        """The record of a name; None where nobody brings one.

        Raises
        ------
        BadOption
            An installed package brings one that cannot be used; the message says which and why.
        """
        known = self.own | self.registered
        if name in known:
            return known[name]
        if name not in self._points:
            return None
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def all(self) -> dict[str, R]:
        """Every record by its name. One of an installed package that cannot be used is left out, with a warning that names it."""
        found = {}
        for name in self.names():
            try:
                record = self.get(name)
            except BadOption as error:
                warnings.warn(f"{error} It is left out.", UserWarning, stacklevel=2)
                continue
            assert record is not None
            found[name] = record
        return found

    def register(self, record: R) -> None:
        """Make a record known for the rest of the process; the same one may be registered again.

        Raises
        ------
        BadOption
            It is none of this kind, or another one has its name.
        """
        if not isinstance(record, self.kind):
            raise BadOption(f"A {self.what} is a {self.kind.__name__}, not a {type(record).__name__}. Give its record.")
        if record.name in self.names() and self.get(record.name) is not record:
            raise BadOption(f"There is a {self.what} of the name {record.name!r} already. Give yours another name.")
        self.registered[record.name] = record

    def _load(self, name: str) -> R:
        points = self._points[name]
        brings = " and ".join(_package(point) for point in points)
        if len(points) > 1:
            raise BadOption(f"{brings} both bring the {self.what} {name!r} ({self.group}). Remove all but one of them.")
        said = f"The {self.what} {name!r} that {brings} brings (entry point of {self.group}: {points[0].value})"
        try:
            record = points[0].load()
        except Exception as error:  # it is another package's code, and may fail in any way
            raise BadOption(
                f"{said} cannot be loaded: {type(error).__name__}: {error}. Remove the package, or correct it."
            ) from error
        if not isinstance(record, self.kind) or record.name != name:
            other = (
                f"one of the name {record.name!r}" if isinstance(record, self.kind) else f"a {type(record).__name__}"
            )
            raise BadOption(f"{said} is {other}. Remove the package, or correct it.")
        return record


def _package(point: EntryPoint) -> str:
    return "an installed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"

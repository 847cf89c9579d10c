"""The label-transfer methods that scgraft knows: an open registry.

A method of this package is a module of this folder with a ``METHOD`` record. Another package brings one by an entry point in the
group ``scgraft.label_methods`` (the value a :class:`LabelMethod`), a notebook by :func:`register_label_method`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from scgraft.errors import BadOption
from scgraft.labels.methods.method import LabelMethod

GROUP = "scgraft.label_methods"
_REGISTERED: dict[str, LabelMethod] = {}


@cache
def _installed() -> dict[str, LabelMethod]:
    """Methods of this folder, and of installed packages that name one; a method of the package itself comes first."""
    found = {}
    for module in iter_modules(__path__):
        record = getattr(import_module(f"{__name__}.{module.name}"), "METHOD", None)
        if isinstance(record, LabelMethod):
            found[record.name] = record
    for point in entry_points(group=GROUP):
        record = point.load()
        if not isinstance(record, LabelMethod):
            raise BadOption(
                f"The entry point {point.name!r} of {GROUP} is a {type(record).__name__}, not a LabelMethod. Remove the package that "
                "brings it, or correct it."
            )
        found.setdefault(record.name, record)
    return found


def label_methods() -> dict[str, LabelMethod]:
    """Every method by its name."""
    return {**_installed(), **_REGISTERED}


def register_label_method(method: LabelMethod) -> None:
    """Make a label-transfer method known for the rest of the process.

    Parameters
    ----------
    method
        Its record. The same record may be registered again.

    Raises
    ------
    BadOption
        It is no record of a method, or another method has its name.

    Examples
    --------
    >>> import scgraft
    >>> from scgraft.labels.methods import label_methods
    >>> scgraft.register_label_method(label_methods()["neighbours"])  # the same record again changes nothing
    """
    if not isinstance(method, LabelMethod):
        raise BadOption(f"A label method is a scgraft.LabelMethod, not a {type(method).__name__}.")
    if label_methods().get(method.name, method) is not method:
        raise BadOption(f"There is a label method of the name {method.name!r} already. Give yours another name.")
    _REGISTERED[method.name] = method


def label_method_of(name: str) -> LabelMethod:
    """The method of a name.

    Raises
    ------
    BadOption
        No method has this name.
    """
    known = label_methods()
    if name not in known:
        raise BadOption(f"There is no label method {name!r}; there are {', '.join(sorted(known))}.")
    return known[name]

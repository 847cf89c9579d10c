"""The label-transfer methods that scgraft knows: an open registry (:mod:`scgraft.registry`).

A method of this package is a module of this folder with a ``METHOD`` record. Another package brings one by an entry point in the
group ``scgraft.label_methods`` (the name is that of the method, the value a :class:`LabelMethod`), a notebook by
:func:`register_label_method`.
"""

from __future__ import annotations

from scgraft.errors import BadOption
from scgraft.labels.methods.method import LabelMethod
from scgraft.registry import Registry

METHODS = Registry(LabelMethod, "label method", "scgraft.label_methods", __name__, "METHOD")


def label_methods() -> dict[str, LabelMethod]:
    """Every method by its name; those of installed packages are loaded."""
    return METHODS.all()


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
    METHODS.register(method)


def label_method_of(name: str) -> LabelMethod:
    """The method of a name.

    Raises
    ------
    BadOption
        No method has this name, or an installed package brings it and it cannot be used.
    """
    found = METHODS.get(name)
    if found is None:
        raise BadOption(
            f"There is no label method {name!r}; there are {', '.join(METHODS.names())}. Choose one of these."
        )
    return found


def require_held_out(name: str) -> None:
    """Refuse a method that cannot be calibrated.

    Raises
    ------
    BadOption
        There is no such method, or it was trained with the labels of the cells that would be held out.
    """
    if not label_method_of(name).held_out:
        raise BadOption(
            f"The label method {name!r} cannot be calibrated: it was trained with the labels of all of the reference's cells, so on "
            "held-out ones it looks better than it is on a query. Map with calibration=None (--no-calibration): its labels then have "
            "bare shares of the vote, and no probabilities, prediction sets, novelty or verdict. Or choose another method."
        )

"""Bundle -> Reference, whichever package wrote the files."""

from __future__ import annotations

from scgraft.files.budget import Budget
from scgraft.reference import scarches_format, scvi_format
from scgraft.reference.beside import load_budget
from scgraft.values.reference import Bundle, Reference


def read(bundle: Bundle, budget: Budget | None = None) -> Reference:
    """Read a reference from its files, all within one budget (None: its own); nothing in them is executed.

    Raises
    ------
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or contradict one another.
    UnsupportedModel
        A class or an option that scgraft does not know.
    """
    budget = budget or load_budget(bundle)
    form = scarches_format if scarches_format.is_scarches(bundle, budget) else scvi_format
    return form.read(bundle, budget)

"""Bundle -> Reference, whichever package wrote the files."""

from __future__ import annotations

from scgraft.reference import scarches_format, scvi_format
from scgraft.values.reference import Bundle, Reference


def read(bundle: Bundle) -> Reference:
    """Read a reference from its files; nothing in them is executed.

    Raises
    ------
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or contradict one another.
    UnsupportedModel
        A class or an option that scgraft does not know.
    """
    return scarches_format.read(bundle) if scarches_format.is_scarches(bundle) else scvi_format.read(bundle)

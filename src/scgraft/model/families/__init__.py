"""The supported model families: an open registry."""

from __future__ import annotations

from scgraft.errors import UnsupportedModel
from scgraft.model.families import scanvi, scvi
from scgraft.model.families.family import Family

FAMILIES: dict[str, Family] = {scvi.FAMILY.name: scvi.FAMILY, scanvi.FAMILY.name: scanvi.FAMILY}


def family_of(name: str) -> Family:
    """Family of a scvi-tools class name.

    Raises
    ------
    UnsupportedModel
        No family of that name.
    """
    if name not in FAMILIES:
        raise UnsupportedModel(
            f"The repository holds a model of class {name!r}; supported are {', '.join(sorted(FAMILIES))}. "
            "Choose a reference of one of these classes."
        )
    return FAMILIES[name]

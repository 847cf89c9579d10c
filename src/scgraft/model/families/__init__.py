"""The model families that scgraft knows: an open registry (:mod:`scgraft.registry`).

A family of this package is a module of this folder with a ``FAMILY`` record. Another package brings one by an entry point in the
group ``scgraft.families`` (the name is that of the model class, the value a :class:`Family`), a notebook by
:func:`register_family`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scgraft.errors import UnsupportedModel
from scgraft.model.families.family import Family
from scgraft.registry import Registry

if TYPE_CHECKING:
    import numpy as np

FAMILIES = Registry(Family, "model family", "scgraft.families", __name__, "FAMILY")
# Classes that are known and not supported, and what is known of each.
KNOWN = {
    "SysVI": "its encoder is trained with a cycle loss and a VampPrior; no published reference was found",
    "MRVI": "its encoder depends on the sample of each cell; no published reference was found",
    "RESOLVI": "it denoises spatial counts with each cell's neighbours in the tissue, which a query lacks",
    "SCVIVA": "it encodes the spatial niche of each cell, which a dissociated query lacks",
    "CytoVI": "it models protein intensities of cytometry, not counts",
    "METHYLVI": "it models methylated against covered sites, not counts",
    "METHYLANVI": "it models methylated against covered sites, not counts",
    "TOTALANVI": "a joint model of RNA and surface proteins with labels",
    "AUTOZI": "scvi-tools has no surgery for it, and no published reference was found",
    "DRVI": "scvi-tools has no surgery for it",
    "GIMVI": "it imputes genes of spatial data, and has no surgery",
    "VELOVI": "it models spliced and unspliced counts, and has no surgery",
    "DestVI": "a deconvolution of spots, not a latent space of cells",
}


def families() -> dict[str, Family]:
    """Every family by the name of its model class; those of installed packages are loaded."""
    return FAMILIES.all()


def register_family(family: Family) -> None:
    """Make a family known for the rest of the process.

    Parameters
    ----------
    family
        Its record. The same record may be registered again.

    Raises
    ------
    BadOption
        It is no record of a family, or another family has its name.

    Examples
    --------
    >>> import scgraft
    >>> from scgraft.model.families import family_of
    >>> scgraft.register_family(family_of("SCVI"))  # the same record again changes nothing
    """
    FAMILIES.register(family)


def family_of(name: str) -> Family:
    """Family of a scvi-tools class name.

    Raises
    ------
    UnsupportedModel
        No family of that name.
    BadOption
        An installed package brings it, and it cannot be used.
    """
    found = FAMILIES.get(name)
    if found is None:
        mapped = ", ".join(sorted(family.name for family in families().values() if family.refusal is None))
        said = f" ({KNOWN[name]})" if name in KNOWN else ""
        raise UnsupportedModel(
            f"The repository holds a model of class {name!r}{said}, which scgraft cannot map onto; supported are {mapped}. "
            "Choose a reference of one of these classes."
        )
    return found


def require_mapping(name: str) -> None:
    """Refuse a class that can be described and not mapped onto.

    Raises
    ------
    UnsupportedModel
        With the reason.
    """
    if reason := family_of(name).refusal:
        raise UnsupportedModel(f"No query can be mapped onto this reference. {reason}")


def recognised(weights: Mapping[str, np.ndarray]) -> str:
    """Name of the family that a state dict belongs to, for old files that do not name their class.

    Raises
    ------
    UnsupportedModel
        No family, or more than one, knows these weights.
    """
    found = [family.name for family in families().values() if family.recognises(weights)]
    if len(found) != 1:
        raise UnsupportedModel(
            "The model's files do not name its class, and its weights are those of "
            f"{' or '.join(sorted(found)) or 'no class that scgraft knows'} (tensors: {', '.join(sorted(weights)[:4])}, ...)."
        )
    return found[0]

"""CondSCVI: the single-cell half of DestVI, described and not mapped (Lopez et al., Nature Biotechnology 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from scgraft.errors import UnsupportedModel
from scgraft.model.deconvolution import Deconvolution, no_slots, sizes
from scgraft.model.families.family import Family
from scgraft.values.reference import Reference, Schema

if TYPE_CHECKING:
    import numpy as np

REFUSAL = (
    "CondSCVI was made for the deconvolution of spots (DestVI): its encoder takes the label of each cell as an input, so it "
    "cannot embed cells whose label is not known yet. Choose an SCVI or SCANVI reference of the same tissue."
)


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Deconvolution:
    """Sizes of the model."""
    return sizes(weights, schema, int(weights["z_encoder.mean_encoder.weight"].shape[0]))


def build(reference: Reference, device: object, dtype: object) -> NoReturn:
    """Refuse: there is nothing to map onto."""
    raise UnsupportedModel(REFUSAL)


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """An encoder and weights of cell types."""
    return {"ct_weight", "z_encoder.mean_encoder.weight"} <= weights.keys()


FAMILY = Family(
    name="CondSCVI",
    read_hyper=read_hyper,
    slots=no_slots,
    build=build,
    recognises=recognises,
    citations=("Lopez et al. (Nat. Biotechnol. 2022, doi:10.1038/s41587-022-01272-8)",),
    refusal=REFUSAL,
)

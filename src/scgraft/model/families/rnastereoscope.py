"""RNAStereoscope: an expression profile for each label, described and not mapped (Andersson et al., Communications Biology 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from scgraft.errors import UnsupportedModel
from scgraft.model.deconvolution import Deconvolution, no_slots
from scgraft.model.families.family import Family
from scgraft.model.tensors import Tensors
from scgraft.values.reference import Reference, Schema

if TYPE_CHECKING:
    import numpy as np

REFUSAL = (
    "RNAStereoscope was made for the deconvolution of spots: it holds an expression profile for each label and has neither "
    "an encoder nor a latent. Choose an SCVI or SCANVI reference of the same tissue."
)


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Deconvolution:
    """Sizes of the model."""
    return Deconvolution(n_latent=0, n_labels=len(schema.labels))


def tensors(hyper: Deconvolution, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    n_genes, n_labels = len(schema.genes), hyper.n_labels
    return Tensors({"W": (n_genes, n_labels), "px_o": (n_genes,), "ct_weight": (n_labels,)})


def build(reference: Reference, device: object, dtype: object) -> NoReturn:
    """Refuse: there is nothing to map onto."""
    raise UnsupportedModel(REFUSAL)


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """Profiles and weights of cell types."""
    return {"ct_weight", "px_o"} <= weights.keys()


FAMILY = Family(
    name="RNAStereoscope",
    read_hyper=read_hyper,
    slots=no_slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("Andersson et al. (Commun. Biol. 2020, doi:10.1038/s42003-020-01247-y)",),
    refusal=REFUSAL,
)

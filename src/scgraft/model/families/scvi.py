"""SCVI: the variational autoencoder alone (Lopez et al., Nature Methods 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.model.tensors import Tensors, autoencoder
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import numpy as np
    import torch

    from scgraft.model.options import Hyper
    from scgraft.model.vae import Vae


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``."""
    return options_of.read_hyper(options, weights, schema, model="SCVI")


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    return autoencoder(hyper, schema)


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model."""
    return options_of.slots(hyper, schema, weights)


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Vae:
    """The frozen model in torch."""
    from scgraft.model import vae

    hyper, schema, weights = reference.hyper, reference.schema, reference.weights
    return vae.make_vae(hyper, schema, weights, slots(hyper, schema, weights), device=device, dtype=dtype)


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """An autoencoder of counts without a classifier's prior and without a background."""
    return "decoder.px_scale_decoder.0.weight" in weights and not {"y_prior", "background_pro_alpha"} & weights.keys()


FAMILY = Family(
    name="SCVI",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("Lopez et al. (Nat. Methods 2018, doi:10.1038/s41592-018-0229-2)",),
    scvi_options=ScviOptions(
        by_name=(
            "n_layers",
            "n_latent",
            "dispersion",
            "gene_likelihood",
            "use_observed_lib_size",
            "latent_distribution",
        ),
        others="kwargs",
        minified="scvi",
    ),
)

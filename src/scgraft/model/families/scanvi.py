"""SCANVI: SCVI with a classifier and a latent under each label (Xu et al., Molecular Systems Biology 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scgraft.errors import CorruptFile
from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import numpy as np
    import torch

    from scgraft.model.options import Hyper
    from scgraft.model.scanvae import Scanvae


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``."""
    n_labels = weights["y_prior"].shape[-1]
    if n_labels != len(schema.labels):
        raise CorruptFile(
            f"The SCANVI classifier has {n_labels} classes, but the registry lists {len(schema.labels)} labels besides "
            f"{schema.unlabeled!r}: {', '.join(schema.labels[:8])}. The files of this model contradict one another."
        )
    return options_of.read_hyper(options, weights, schema, model="SCANVI")


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model; the classifier and the second latent see no batch."""
    return options_of.slots(hyper, schema, weights)


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Scanvae:
    """The frozen model in torch."""
    from scgraft.model import scanvae

    return scanvae.make_scanvae(reference.hyper, reference.schema, reference.weights, device=device, dtype=dtype)


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """An autoencoder of counts with a prior of the classes."""
    return "decoder.px_scale_decoder.0.weight" in weights and "y_prior" in weights


FAMILY = Family(
    name="SCANVI",
    read_hyper=read_hyper,
    slots=slots,
    build=build,
    recognises=recognises,
    citations=(
        "Lopez et al. (Nat. Methods 2018, doi:10.1038/s41592-018-0229-2)",
        "Xu et al. (Mol. Syst. Biol. 2021, doi:10.15252/msb.20209620)",
    ),
    has_classifier=True,
    keeps_unlabeled=True,
    scvi_options=ScviOptions(
        by_name=("n_layers", "n_latent", "dispersion", "gene_likelihood", "use_observed_lib_size", "linear_classifier"),
        others="model_kwargs",
        minified="scanvi",
    ),
)

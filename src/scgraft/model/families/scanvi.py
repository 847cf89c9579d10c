"""SCANVI: SCVI with a classifier and a latent under each label (Xu et al., Molecular Systems Biology 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.model.tensors import Tensors, autoencoder, classifier_and_second_latent
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import numpy as np
    import torch

    from scgraft.model.options import Hyper
    from scgraft.model.scanvae import Scanvae


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``.

    The unlabeled category is no class of the model, as a rule. Where no cell had it while a label of the registry had no
    cell either (or a data module gave the registry), scvi-tools counts it as one: the weights tell.
    """
    own = {name: value for name, value in options.items() if name != "classifier_parameters"}
    hyper = options_of.read_hyper(own, weights, schema, model="SCANVI")
    prior = weights.get("y_prior")
    if schema.unlabeled is not None and prior is not None and prior.shape == (1, len(schema.labels) + 1):
        hyper = replace(hyper, n_labels=len(schema.labels) + 1)
    return replace(hyper, classifier=options_of.read_classifier(options.get("classifier_parameters") or {}, hyper))


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    return autoencoder(hyper, schema) | classifier_and_second_latent(hyper)


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
    tensors=tensors,
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

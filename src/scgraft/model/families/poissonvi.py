"""POISSONVI: SCVI's autoencoder on fragment counts of chromatin regions, with Poisson counts (Martens et al., Nature Methods 2024).

The encoder sees no batch unless asked to, so a query is mapped by one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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

# What the class passes to SCVI's module, without writing it into its options.
DEFAULTS = {"gene_likelihood": "poisson", "n_layers": 2, "use_batch_norm": "none", "use_layer_norm": "both"}


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``."""
    hyper = options_of.read_hyper(options, weights, schema, model="POISSONVI", defaults=DEFAULTS)
    return replace(hyper, activation="leaky_relu")


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
    """Never: its weights are those of an SCVI model, so only the file can name it."""
    return False


FAMILY = Family(
    name="POISSONVI",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=(
        "Lopez et al. (Nat. Methods 2018, doi:10.1038/s41592-018-0229-2)",
        "Martens et al. (Nat. Methods 2024, doi:10.1038/s41592-023-02112-6)",
    ),
    scvi_options=ScviOptions(as_saved=True, package="scvi.external", normalized="get_normalized_accessibility"),
)

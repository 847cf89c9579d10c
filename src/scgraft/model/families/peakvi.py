"""PEAKVI: which chromatin regions are open, as Bernoulli observations (Ashuach et al., Cell Reports Methods 2022).

The encoder sees no batch unless asked to, so a query is mapped by one forward pass. It takes the raw counts, neither
logarithm nor zeros and ones: a query that was counted in another way is shifted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.model.options import Hyper, PeakOptions
from scgraft.model.tensors import Tensors, linear, stack
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import torch

    from scgraft.model.vae import Vae

DEFAULTS = {"deeply_inject_covariates": False, "use_batch_norm": "none", "use_layer_norm": "both"}
# Options that SCVI does not have.
OWN = frozenset({"n_layers_encoder", "n_layers_decoder", "model_depth", "region_factors"})


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``."""
    hyper = options_of.read_hyper(options, weights, schema, model="PEAKVI", defaults=DEFAULTS, silent=OWN)
    own = {name: options[name] for name in OWN if options.get(name) is not None}
    sizes = {
        name: options_of.size(name, own.get(name, 2), "PEAKVI") for name in ("n_layers_encoder", "n_layers_decoder")
    }
    flags = {name: options_of.flag(name, own.get(name, True), "PEAKVI") for name in ("model_depth", "region_factors")}
    return replace(
        hyper,
        n_layers=sizes["n_layers_encoder"],
        peaks=PeakOptions(sizes["n_layers_decoder"], **flags),
        gene_likelihood="bernoulli",
        activation="leaky_relu",
        variance_floor=0.0,
        log_variational=False,
    )


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor: layer norms have none."""
    assert hyper.peaks is not None
    n_regions, width, beside = len(schema.genes), hyper.n_hidden, len(schema.continuous)
    norm_encoder, norm_decoder = (hyper.use_batch_norm in (scope, "both") for scope in ("encoder", "decoder"))
    # scvi-tools writes no column for a single level
    columns = sum(len(names) for names in schema.levels.values() if len(names) > 1)
    encoded = columns * hyper.encode_covariates
    enters, more = n_regions + beside * hyper.encode_covariates + encoded, hyper.n_layers - 1
    encoder = stack("z_encoder.encoder", [enters] + [width + encoded] * more, width, batch_norm=norm_encoder)
    for head in ("z_encoder.mean_encoder", "z_encoder.var_encoder"):
        encoder.needed.update(linear(head, width, hyper.n_latent))
    later = [width + columns * hyper.deeply_inject_covariates] * (hyper.peaks.n_layers_decoder - 1)
    inputs = [hyper.n_latent + beside + columns] + later
    found = encoder | stack("z_decoder.px_decoder", inputs, width, batch_norm=norm_decoder)
    found.needed.update(linear("z_decoder.output.0", width, n_regions))
    if hyper.peaks.model_depth:
        found |= stack("d_encoder.px_decoder", [enters] + [width] * more, width, batch_norm=False)
        found.needed.update(linear("d_encoder.output.0", width, 1))
    if hyper.peaks.region_factors:
        found.needed["region_factors"] = (n_regions,)
    return found


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model. The encoder's layers see the covariates all or none, the depth's only the first."""
    levels = {name: len(names) for name, names in schema.levels.items()}
    encoded = levels if hyper.encode_covariates else {}
    n_continuous = len(schema.continuous)
    enters = len(schema.genes) + (n_continuous if hyper.encode_covariates else 0)
    return (
        *options_of.stack_slots(weights, "z_encoder.encoder", enters, encoded, deep=True, role="encoder"),
        *options_of.stack_slots(
            weights, "d_encoder.px_decoder", enters, encoded, deep=False, role="library", trainable=False
        ),
        *options_of.stack_slots(
            weights,
            "z_decoder.px_decoder",
            hyper.n_latent + n_continuous,
            levels,
            deep=hyper.deeply_inject_covariates,
            role="decoder",
        ),
    )


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Vae:
    """The frozen model in torch."""
    from scgraft.model.peaks import make_peak_vae

    hyper, schema, weights = reference.hyper, reference.schema, reference.weights
    return make_peak_vae(hyper, schema, weights, slots(hyper, schema, weights), device=device, dtype=dtype)


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """A decoder of probabilities and no modality beside it."""
    return "z_decoder.output.0.weight" in weights


FAMILY = Family(
    name="PEAKVI",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("Ashuach et al. (Cell Rep. Methods 2022, doi:10.1016/j.crmeth.2022.100182)",),
    scvi_options=ScviOptions(as_saved=True, normalized="get_normalized_accessibility"),
)

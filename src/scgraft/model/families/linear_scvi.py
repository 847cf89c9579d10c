"""LinearSCVI: SCVI with one linear map as its decoder, whose weights are loadings (Svensson et al., Bioinformatics 2020).

The encoder never sees a batch, so a query is mapped by one forward pass. scvi-tools has no surgery for this class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import UnsupportedModel
from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.model.options import Hyper
from scgraft.model.tensors import Tensors, dispersion, linear, stack, when
from scgraft.values.names import BATCH
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import torch

    from scgraft.model.vae import Vae

LOADINGS = "decoder.factor_regressor.fc_layers.Layer 0"
# Options of the decoder, which SCVI does not have, or means something else by.
OWN = frozenset({"use_batch_norm", "bias"})
LIBRARY = ("library_log_means", "library_log_vars")


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``.

    The encoders always have a batch norm; ``use_batch_norm`` is the decoder's.
    """
    observed = not any(name in weights for name in LIBRARY)  # the class's default differs between versions
    hyper = options_of.read_hyper(
        options,
        weights,
        schema,
        model="LinearSCVI",
        defaults={"gene_likelihood": "nb", "use_observed_lib_size": observed},
        silent=OWN,
    )
    if hyper.dispersion == "gene-cell":
        raise UnsupportedModel(
            "This LinearSCVI model says dispersion='gene-cell', but the class has no dispersion of each cell. The file was changed, "
            "or is of another class: take the original."
        )
    own = {name: options.get(name) for name in OWN}
    norm = own["use_batch_norm"] is None or options_of.flag("use_batch_norm", own["use_batch_norm"], "LinearSCVI")
    return replace(
        hyper,
        linear_decoder=True,
        use_batch_norm="both" if norm else "encoder",
        decoder_bias=own["bias"] is not None and options_of.flag("bias", own["bias"], "LinearSCVI"),
    )


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    n_genes, n_batch, width = len(schema.genes), len(schema.batches), hyper.n_hidden
    inputs = [n_genes] + [width] * (hyper.n_layers - 1)
    z_encoder = stack("z_encoder.encoder", inputs, width, batch_norm=True)
    library = stack("l_encoder.encoder", inputs[:1], width, batch_norm=True)
    library.needed.update(dict.fromkeys(LIBRARY, (1, n_batch)))
    for head in ("mean_encoder", "var_encoder"):
        z_encoder.needed.update(linear(f"z_encoder.{head}", width, hyper.n_latent))
        library.needed.update(linear(f"l_encoder.{head}", width, 1))
    columns = n_batch if n_batch > 1 else 0  # scvi-tools writes no column for a single level

    def decoder(name: str) -> Tensors:
        norm, bias = hyper.use_batch_norm == "both", hyper.decoder_bias
        return stack(f"decoder.{name}", [hyper.n_latent + columns], n_genes, batch_norm=norm, bias=bias)

    return (
        z_encoder
        | when(hyper.models_library, library)
        | decoder("factor_regressor")
        | when(hyper.gene_likelihood == "zinb", decoder("px_dropout_decoder"))
        | dispersion(hyper, n_genes, n_batch)
    )


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model: columns of the decoder, of a dispersion by batch, and of the prior of the library size."""
    n_batch, found = len(schema.batches), []
    for prefix, role in (("z_encoder.encoder", "encoder"), ("l_encoder.encoder", "library")):
        options_of.stack_slots(weights, prefix, len(schema.genes), {}, deep=False, role=role)  # type: ignore[arg-type]
    for prefix in ("decoder.factor_regressor", "decoder.px_dropout_decoder"):
        seen = prefix == "decoder.factor_regressor" or hyper.gene_likelihood == "zinb"
        found += options_of.stack_slots(
            weights, prefix, hyper.n_latent, {BATCH: n_batch}, deep=False, role="decoder", trainable=seen
        )
    return (*found, *options_of.batch_slots(hyper, schema, weights))


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Vae:
    """The frozen model in torch."""
    from scgraft.model import vae

    hyper, schema, weights = reference.hyper, reference.schema, reference.weights
    return vae.make_vae(hyper, schema, weights, slots(hyper, schema, weights), device=device, dtype=dtype)


def loadings(reference: Reference) -> np.ndarray:
    """Loadings (G, d), float32: how each gene's log rate moves with each latent dimension.

    The batch norm at its running statistics is part of them.
    """
    weights, n_latent = reference.weights, reference.hyper.n_latent
    own = weights[f"{LOADINGS}.0.weight"][:, :n_latent]
    if f"{LOADINGS}.1.running_var" not in weights:
        return own
    # 1e-3 is the batch norm's epsilon in every scvi-tools layer.
    scale = weights[f"{LOADINGS}.1.weight"] / np.sqrt(weights[f"{LOADINGS}.1.running_var"].astype(np.float64) + 1e-3)
    return (own * scale[:, None]).astype(np.float32)


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """An autoencoder whose decoder is one linear map."""
    return f"{LOADINGS}.0.weight" in weights


FAMILY = Family(
    name="LinearSCVI",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=(
        "Lopez et al. (Nat. Methods 2018, doi:10.1038/s41592-018-0229-2)",
        "Svensson et al. (Bioinformatics 2020, doi:10.1093/bioinformatics/btaa169)",
    ),
    scvi_options=ScviOptions(as_saved=True),
)

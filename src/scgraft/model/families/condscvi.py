"""CondSCVI: the single-cell half of DestVI, described and not mapped (Lopez et al., Nature Biotechnology 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from scgraft.errors import UnsupportedModel
from scgraft.model.deconvolution import Deconvolution, no_slots
from scgraft.model.families.family import Family
from scgraft.model.options import EMBEDDING, flag, size
from scgraft.model.tensors import Tensors, linear, stack
from scgraft.values.names import shown
from scgraft.values.reference import Reference, Schema

if TYPE_CHECKING:
    import numpy as np

REFUSAL = (
    "CondSCVI was made for the deconvolution of spots (DestVI): its encoder takes the label of each cell as an input, so it "
    "cannot embed cells whose label is not known yet. Choose an SCVI or SCANVI reference of the same tissue."
)


# What only files of scvi-tools since 1.4.1 hold.
SINCE_1_4_1 = ("per_ct_bias", EMBEDDING, "px_decoder.weight", "px_decoder.bias")
FINE = ("classifier.classifier.0.bias", "classifier.classifier.0.weight", "linear_mapping.fc_layers.Layer 0.0.bias")
EMBEDDING_DIM = 5  # of scvi-tools, which gives no option for it


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Deconvolution:
    """Sizes of the model, from the flattened ``init_params_``; what is absent has the class's default.

    Raises
    ------
    UnsupportedModel
        An option with a value that is not supported.
    """
    name = "CondSCVI"
    given = {key: value for key, value in options.items() if value is not None}
    if changed := [key for key in ("extra_encoder_kwargs", "extra_decoder_kwargs") if given.get(key)]:
        raise UnsupportedModel(
            f"The {name} model was made with the option {changed[0]}={shown(given[changed[0]])}, which scgraft does not know."
        )
    fine = next((weights[key] for key in FINE if key in weights and weights[key].ndim), None)
    mixed = given.get("prior") == "mog"
    return Deconvolution(
        n_latent=size("n_latent", given.get("n_latent", 5), name),
        n_labels=len(schema.labels),
        n_hidden=size("n_hidden", given.get("n_hidden", 128), name),
        n_layers=size("n_layers", given.get("n_layers", 2), name),
        encode_covariates=flag("encode_covariates", given.get("encode_covariates", False), name),
        by_label=any(key in weights for key in SINCE_1_4_1),
        n_mixed=size("num_classes_mog", given.get("num_classes_mog", 10), name) if mixed else 0,
        n_fine=0 if fine is None else len(fine),
    )


def tensors(hyper: Deconvolution, schema: Schema) -> Tensors:
    """Names and shapes of every tensor: layer norms have none."""
    n_genes, n_batch, n_labels, width, d = (
        len(schema.genes), len(schema.batches), hyper.n_labels, hyper.n_hidden, hyper.n_latent
    )  # fmt: skip
    # scvi-tools writes no column for a single level; since 1.4.1 batches are no columns, but an embedding.
    labels = n_labels if n_labels > 1 else 0
    batches = n_batch if n_batch > 1 and not hyper.by_label else 0
    embedded = EMBEDDING_DIM * hyper.by_label
    encoded = labels + batches * hyper.encode_covariates
    more = hyper.n_layers - 1
    encoder = [n_genes + embedded * hyper.encode_covariates + encoded] + [width + encoded] * more
    found = stack("z_encoder.encoder", encoder, width, batch_norm=False)
    for head in ("z_encoder.mean_encoder", "z_encoder.var_encoder"):
        found.needed.update(linear(head, width, d))
    decoder = [d + embedded + labels + batches] + [width + labels + batches] * more
    found |= stack("decoder", decoder, width, batch_norm=False)
    found.needed.update({"px_r": (n_genes,), "ct_weight": (n_labels,)})
    if hyper.by_label:
        found.needed.update({"per_ct_bias": (n_labels, n_genes), EMBEDDING: (n_batch, EMBEDDING_DIM)})
    found.needed.update(linear("px_decoder" if hyper.by_label else "px_decoder.0", width, n_genes))
    if hyper.n_mixed:
        each = (n_labels, hyper.n_mixed)
        found.needed.update({"prior_means": (*each, d), "prior_log_std": (*each, d), "prior_logits": each})
    if hyper.n_fine:
        found |= stack("linear_mapping", [d + labels], width, batch_norm=True)
        found.needed.update(linear("classifier.classifier.0", width, hyper.n_fine))
    return found


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
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("Lopez et al. (Nat. Biotechnol. 2022, doi:10.1038/s41587-022-01272-8)",),
    refusal=REFUSAL,
)

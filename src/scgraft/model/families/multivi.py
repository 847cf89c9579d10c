"""MULTIVI: genes, regions of chromatin and surface proteins, of cells that have some or all of them (Ashuach et al., Nature Methods 2023).

Each kind of feature has an encoder of its own, and a cell's posterior is their mixture over the kinds that it has counts of. A cell
that lacks a kind is mapped by the others, exactly as the model was trained to. The encoders see no batch unless asked to. Genes come
first in the counts, then regions, as in scvi-tools' own form on AnnData; proteins are a block beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import UnsupportedModel
from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.model.kinds import KINDS, WEIGHTS, n_proteins
from scgraft.model.options import Hyper, PeakOptions, size, stack_slots
from scgraft.model.tensors import Shape, Shapes, Tensors, linear, stack, when
from scgraft.values.blocks import PROTEINS
from scgraft.values.names import BATCH, shown
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import torch

    from scgraft.model.multivi import Multivi

HIDDEN = ("py_fore_decoder", "py_back_decoder", "sigmoid_decoder")
HEADS = ("py_fore_scale_decoder", "py_background_decoder", "py_back_mean_log_alpha", "py_back_mean_log_beta")
PENALTIES = ("Jeffreys", "MMD", "None")
# Options that are read here, that the weights or the registry tell, or that only say how it is trained.
SILENT = frozenset({
    "n_genes", "n_regions", "n_proteins", "modality_weights", "modality_penalty", "n_layers_encoder", "n_layers_decoder",
    "region_factors", "fully_paired", "protein_dispersion", "protein_background_prior_mean", "protein_background_prior_scale",
    "n_obs",
})  # fmt: skip


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_`` and the weights."""
    heads = weights.get("z_encoder_expression.mean_encoder.weight")
    found = (10, 128) if heads is None or heads.ndim != 2 else heads.shape
    # The version is no option of the model, and what is None was left to the class.
    given = {name: value for name, value in options.items() if name != "scvi_version" and value is not None}
    defaults = {
        "n_latent": int(found[0]), "n_hidden": int(found[1]), "gene_likelihood": "zinb",
        "deeply_inject_covariates": False, "use_batch_norm": "none", "use_layer_norm": "both",
    }  # fmt: skip
    hyper = options_of.read_hyper(given, weights, schema, model="MULTIVI", defaults=defaults, silent=SILENT)
    if schema.size_factor_key is not None:
        raise UnsupportedModel(
            "The MULTIVI model was set up with size factors, and no such model was at hand to check its numbers against. It is "
            "not loaded: ask its author for one without."
        )
    if hyper.dispersion != "gene" or hyper.gene_likelihood not in ("zinb", "nb", "poisson"):
        raise UnsupportedModel(
            f"The MULTIVI model has dispersion={hyper.dispersion} and gene_likelihood={hyper.gene_likelihood}; supported are "
            "dispersion=gene and zinb, nb, poisson."
        )
    penalty, protein = str(options.get("modality_penalty", "Jeffreys")), options.get("protein_dispersion", "protein")
    if penalty not in PENALTIES or protein != "protein":
        raise UnsupportedModel(
            f"The MULTIVI model has modality_penalty={shown(penalty)} and protein_dispersion={shown(protein)}; supported are "
            f"{', '.join(PENALTIES)}, and protein."
        )
    own = weights.get(WEIGHTS, np.zeros(len(KINDS)))
    return replace(
        hyper,
        n_layers=size("n_layers", given.get("n_layers_encoder", 2), "MULTIVI"),
        n_layers_decoder=size("n_layers", given.get("n_layers_decoder", 2), "MULTIVI"),
        peaks=PeakOptions(
            region_factors=options_of.flag("region_factors", given.get("region_factors", True), "MULTIVI")
        ),
        activation="leaky_relu",
        variance_floor=0.0,
        log_variational=False,
        modality_penalty=penalty,
        weighted_cells=len(own) if own.ndim == 2 else 0,
    )


def _inputs(schema: Schema) -> dict[str, int]:
    """Inputs of each encoder; a kind that the model lacks is a single column of zeros."""
    n_genes = len(schema.genes) - schema.n_regions
    return dict(zip(KINDS, (max(n, 1) for n in (n_genes, schema.n_regions, n_proteins(schema))), strict=True))


def _deep(kind: str, hyper: Hyper) -> bool:
    """Whether the later layers of an encoder see the covariates: in those of regions and proteins always."""
    return kind != "expression" or hyper.deeply_inject_covariates


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model. What is in no likelihood (proteins that the model lacks, the background's prior) is not trained."""
    levels, n_continuous = {name: len(names) for name, names in schema.levels.items()}, len(schema.continuous)
    encoded, beside = (levels, n_continuous) if hyper.encode_covariates else ({}, 0)
    found: list[Slot] = []
    for kind, n in _inputs(schema).items():
        found += stack_slots(
            weights, f"z_encoder_{kind}.encoder", n + beside, encoded, deep=_deep(kind, hyper), role="encoder",
            trainable=kind != "protein" or n_proteins(schema) > 0,
        )  # fmt: skip
    for kind in KINDS[:2]:
        found += stack_slots(
            weights, f"l_encoder_{kind}.px_decoder", _inputs(schema)[kind] + beside, encoded,
            deep=hyper.deeply_inject_covariates, role="library", trainable=False,
        )  # fmt: skip
    enters = hyper.n_latent + n_continuous
    for kind in KINDS[:2]:
        found += stack_slots(
            weights, f"z_decoder_{kind}.px_decoder", enters, levels, deep=hyper.deeply_inject_covariates, role="decoder"
        )
    lives = n_proteins(schema) > 0
    for names, n in ((HIDDEN, enters), (HEADS, hyper.n_hidden + enters)):
        for name in names:
            prefix = f"z_decoder_pro.{name}"
            found += stack_slots(weights, prefix, n, levels, deep=True, role="decoder", trainable=lives)
    n_batch = len(schema.batches)
    for name in ("background_pro_alpha", "background_pro_log_beta"):
        if name in weights:
            found.append(Slot(name, 1, 0, n_batch, n_batch, BATCH, "background", trainable=False))
    return tuple(found)


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    assert hyper.peaks is not None
    n_genes, width, d, beside = (
        len(schema.genes) - schema.n_regions,
        hyper.n_hidden,
        hyper.n_latent,
        len(schema.continuous),
    )
    columns = sum(len(names) for names in schema.levels.values() if len(names) > 1)
    encoded, deep = columns * hyper.encode_covariates, hyper.deeply_inject_covariates
    norm_encoder, norm_decoder = (hyper.use_batch_norm in (scope, "both") for scope in ("encoder", "decoder"))
    found, more = Tensors({}), hyper.n_layers - 1
    for kind, n in _inputs(schema).items():
        enters = n + beside * hyper.encode_covariates + encoded
        later = [width + encoded * _deep(kind, hyper)] * more
        found |= stack(f"z_encoder_{kind}.encoder", [enters, *later], width, batch_norm=norm_encoder)
        for head in ("mean_encoder", "var_encoder"):
            found.needed.update(linear(f"z_encoder_{kind}.{head}", width, d))
        if kind != "protein":
            later = [width + encoded * deep] * more
            found |= stack(f"l_encoder_{kind}.px_decoder", [enters, *later], width, batch_norm=False)
            found.needed.update(linear(f"l_encoder_{kind}.output.0", width, 1))
    inputs = [d + beside + columns] + [width + columns * deep] * (hyper.n_layers_decoder - 1)
    for kind in KINDS[:2]:
        found |= stack(f"z_decoder_{kind}.px_decoder", inputs, width, batch_norm=norm_decoder)
    found.needed.update(linear("z_decoder_expression.px_scale_decoder.0", width, n_genes))
    found.needed.update(linear("z_decoder_accessibility.output.0", width, schema.n_regions))
    zeros = Tensors(linear("z_decoder_expression.px_dropout_decoder", width, n_genes))
    found |= when(hyper.gene_likelihood == "zinb", zeros)
    found.spare.update(linear("z_decoder_expression.px_r_decoder", width, n_genes))
    found |= _of_proteins(hyper, schema, columns, norm_decoder)
    own: Shapes = {WEIGHTS: (hyper.weighted_cells, len(KINDS)) if hyper.weighted_cells else (len(KINDS),)}
    if hyper.peaks.region_factors:
        own["region_factors"] = (schema.n_regions,)
    return found | Tensors(own) | when(hyper.gene_likelihood != "poisson", Tensors({"px_r": (n_genes,)}))


def _of_proteins(hyper: Hyper, schema: Schema, columns: int, batch_norm: bool) -> Tensors:
    """Tensors of the proteins' decoder, which are there without a protein too."""
    n, width = n_proteins(schema), hyper.n_hidden
    enters = hyper.n_latent + len(schema.continuous) + columns
    prior: Shape = (n, len(schema.batches))
    found = Tensors({"py_r": (n,)}, dict.fromkeys(("background_pro_alpha", "background_pro_log_beta"), prior))
    for name in HIDDEN:
        widths = [enters] + [width + columns] * (hyper.n_layers_decoder - 1)
        found |= stack(f"z_decoder_pro.{name}", widths, width, batch_norm=batch_norm)
    for name in HEADS:
        found.needed.update(linear(f"z_decoder_pro.{name}.fc_layers.Layer 0.0", width + enters, n))
    return when(n > 0, found)


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Multivi:
    """The frozen model in torch."""
    from scgraft.model.multivi import make_multivi

    hyper, schema, weights = reference.hyper, reference.schema, reference.weights
    return make_multivi(hyper, schema, weights, slots(hyper, schema, weights), device=device, dtype=dtype)


def refuse_export(reference: Reference) -> str:
    """Why scvi-tools could not load an export, "" where it can."""
    if reference.hyper.weighted_cells:
        return (
            f"It has weights of genes, regions and proteins for each of the {reference.hyper.weighted_cells} cells that it was trained on "
            "(modality_weights='cell'), and scvi-tools loads it with these cells alone, and no others. Share the graft, which is applied to "
            "the reference as it is."
        )
    return ""


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """An encoder of genes and one of regions."""
    return {"z_encoder_expression.mean_encoder.weight", "z_encoder_accessibility.mean_encoder.weight"} <= weights.keys()


FAMILY = Family(
    name="MULTIVI",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("Ashuach et al. (Nat. Methods 2023, doi:10.1038/s41592-023-01909-9)",),
    encoder_weight="z_encoder_expression.encoder.fc_layers.Layer 0.0.weight",
    region_weight="z_encoder_accessibility.encoder.fc_layers.Layer 0.0.weight",
    blocks=(PROTEINS,),
    scvi_options=ScviOptions(as_saved=True, on_mudata=True, normalized="get_normalized_accessibility"),
    refuse_export=refuse_export,
)

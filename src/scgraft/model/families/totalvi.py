"""TOTALVI: genes and surface proteins of the same cells (Gayoso et al., Nature Methods 2021).

A new batch adds columns to every layer that sees the batch, and for each protein the prior of its background and an efficiency.
Until scvi-tools 1.3.0 the counts entered the encoder as they are, since 1.3.1 over one plus their mean, and an efficiency was added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.model import options as options_of
from scgraft.model.families.family import Family, ScviOptions
from scgraft.model.options import Hyper, size
from scgraft.model.tensors import Shapes, Tensors, linear, stack
from scgraft.values.blocks import PROTEINS
from scgraft.values.names import BATCH, shown
from scgraft.values.reference import Reference, Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import torch

    from scgraft.model.totalvi import Totalvi

EFFICIENCY = "log_per_batch_efficiency"
HIDDEN = ("px_decoder", "py_back_decoder", "py_fore_decoder", "sigmoid_decoder")
GENE_HEADS = ("px_scale_decoder", "px_dropout_decoder_gene")
PROTEIN_HEADS = ("py_back_mean_log_alpha", "py_back_mean_log_beta", "py_fore_scale_decoder", "py_background_decoder")
# How it is trained, what the registry tells, and options that are read here.
SILENT = frozenset({
    "gene_dispersion", "protein_dispersion", "empirical_protein_background_prior", "override_missing_proteins",
    "dropout_rate_encoder", "dropout_rate_decoder", "protein_batch_mask", "n_layers_encoder", "n_layers_decoder",
    "extra_decoder_kwargs", "scvi_version", "protein_background_prior_mean", "protein_background_prior_scale",
})  # fmt: skip
# The format of scvi-tools: its models have the efficiency since 1.3.1; 99 is a convention, above every version.
UNREAD, FIRST_WITH_EFFICIENCY = (99,), (1, 3, 1)
FLOOR = 1e-8  # what scvi-tools since 1.2.1 adds to the background's standard deviation


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_`` and the version that saved them."""
    heads = weights.get("encoder.z_mean_encoder.weight")
    found = (20, 256) if heads is None else heads.shape
    gene, protein = options.get("gene_dispersion", "gene"), options.get("protein_dispersion", "protein")
    if gene not in ("gene", "gene-batch") or protein not in ("protein", "protein-batch"):
        raise UnsupportedModel(
            f"The TOTALVI model has gene_dispersion={shown(gene)} and protein_dispersion={shown(protein)}; supported are those of "
            "each gene and protein, and those of each batch."
        )
    defaults = {
        "n_latent": int(found[0]), "n_hidden": int(found[1]), "gene_likelihood": "nb", "encode_covariates": True,
        "dispersion": gene,
    }  # fmt: skip
    hyper = options_of.read_hyper(options, weights, schema, model="TOTALVI", defaults=defaults, silent=SILENT)
    if hyper.gene_likelihood not in ("nb", "zinb"):
        raise UnsupportedModel(
            f"The TOTALVI model has gene_likelihood={hyper.gene_likelihood}; supported are nb, zinb."
        )
    activation, floor = _background(options)
    version = _version(str(options.get("scvi_version", "")))
    if version != UNREAD and (version >= FIRST_WITH_EFFICIENCY) != (EFFICIENCY in weights):
        has = "has" if EFFICIENCY in weights else "lacks"
        raise CorruptFile(
            f"The TOTALVI model says that scvi-tools {options['scvi_version']} saved it, and it {has} {EFFICIENCY}, which models have since 1.3.1: "
            "its files contradict one another. Download it again."
        )
    return replace(
        hyper,
        n_layers=size("n_layers", options.get("n_layers_encoder", 2), "TOTALVI"),
        n_layers_decoder=size("n_layers", options.get("n_layers_decoder", 1), "TOTALVI"),
        protein_dispersion=protein,
        normalises_input=EFFICIENCY in weights,
        background_activation=activation,
        background_floor=floor,
    )


def _background(options: Mapping[str, Any]) -> tuple[str, float]:
    """Activation of the background's standard deviation, and what is added: as the options say, else by the version."""
    extra = options_of.options_of_option(options.get("extra_decoder_kwargs") or {}, "extra_decoder_kwargs", "TOTALVI")
    given = extra.pop("activation_function_bg", None)
    if extra or given not in (None, "exp", "softplus"):
        raise UnsupportedModel(
            f"The TOTALVI model has extra_decoder_kwargs={shown(options['extra_decoder_kwargs'])}, which scgraft does not know. "
            "Its numbers could not be trusted, so it is not loaded."
        )
    version = _version(str(options.get("scvi_version", "")))
    activation = given or ("exp" if version < (1, 2, 0) else "softplus")
    return activation, FLOOR if activation == "softplus" and version >= (1, 2, 1) else 0.0


def _version(text: str) -> tuple[int, ...]:
    """A version as numbers; one that cannot be read is taken as new (`UNREAD`)."""
    parts = text.split(".")[:3]
    return tuple(map(int, parts)) if len(parts) == 3 and all(part.isdigit() for part in parts) else UNREAD


def one_hot(schema: Schema) -> dict[str, int]:
    """Number of levels of each covariate that the layers see, in the order of their columns: the panel is none of them."""
    panel = schema.block(PROTEINS).panel
    return {name: len(levels) for name, levels in schema.levels.items() if name == BATCH or name != panel}


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model; layers see the covariates all or none."""
    levels, n_continuous = one_hot(schema), len(schema.continuous)
    encoded = levels if hyper.encode_covariates else {}
    enters = len(schema.genes) + len(schema.block(PROTEINS).features) + n_continuous * hyper.encode_covariates
    found = options_of.stack_slots(weights, "encoder.encoder", enters, encoded, deep=True, role="encoder")
    found += options_of.stack_slots(
        weights, "encoder.l_gene_encoder", enters, encoded, deep=True, role="library", trainable=hyper.models_library
    )
    enters = hyper.n_latent + n_continuous
    for name in HIDDEN:
        found += options_of.stack_slots(weights, f"decoder.{name}", enters, levels, deep=True, role="decoder")
    for name in (*GENE_HEADS, *PROTEIN_HEADS):
        seen = name != "px_dropout_decoder_gene" or hyper.gene_likelihood == "zinb"
        n = hyper.n_hidden + enters
        found += options_of.stack_slots(
            weights, f"decoder.{name}", n, levels, deep=True, role="decoder", trainable=seen
        )
    n_batch, panel = len(schema.batches), schema.block(PROTEINS).panel
    n_panel = len(schema.levels[panel])
    for name in ("background_pro_alpha", "background_pro_log_beta"):
        found.append(Slot(name, 1, 0, n_panel, n_panel, panel, "background"))
    if EFFICIENCY in weights:
        found.append(Slot(EFFICIENCY, 1, 0, n_batch, n_batch, BATCH, "efficiency", init="zero"))
    if hyper.protein_dispersion == "protein-batch":
        found.append(Slot("py_r", 1, 0, n_batch, n_batch, BATCH, "dispersion"))
    return (*found, *options_of.batch_slots(hyper, schema, weights))


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    n_genes, n_proteins, n_batch = len(schema.genes), len(schema.block(PROTEINS).features), len(schema.batches)
    width, d, beside = hyper.n_hidden, hyper.n_latent, len(schema.continuous)
    columns = sum(n for n in one_hot(schema).values() if n > 1)
    encoded = columns * hyper.encode_covariates
    norm_encoder, norm_decoder = (hyper.use_batch_norm in (scope, "both") for scope in ("encoder", "decoder"))
    enters = n_genes + n_proteins + beside * hyper.encode_covariates + encoded
    found = stack(
        "encoder.encoder", [enters] + [width + encoded] * (hyper.n_layers - 1), width, batch_norm=norm_encoder
    )
    for head in ("z_mean_encoder", "z_var_encoder"):
        found.needed.update(linear(f"encoder.{head}", width, d))
    library = stack("encoder.l_gene_encoder", [enters], width, batch_norm=norm_encoder)
    for head in ("l_gene_mean_encoder", "l_gene_var_encoder"):
        library.needed.update(linear(f"encoder.{head}", width, 1))
    library.needed.update(dict.fromkeys(("library_log_means", "library_log_vars"), (1, n_batch)))
    found |= library if hyper.models_library else Tensors({}, library.needed | library.spare)
    widths = [d + beside + columns] + [width + columns] * (hyper.n_layers_decoder - 1)
    for name in HIDDEN:
        found |= stack(f"decoder.{name}", widths, width, batch_norm=norm_decoder)
    for name in (*GENE_HEADS, *PROTEIN_HEADS):
        n = n_genes if name in GENE_HEADS else n_proteins
        maps = linear(f"decoder.{name}.fc_layers.Layer 0.0", width + d + beside + columns, n)
        spare = name == "px_dropout_decoder_gene" and hyper.gene_likelihood != "zinb"
        found |= Tensors({}, maps) if spare else Tensors(maps)
    n_panel = len(schema.levels[schema.block(PROTEINS).panel])
    own: Shapes = dict.fromkeys(("background_pro_alpha", "background_pro_log_beta"), (n_proteins, n_panel))
    own["px_r"] = (n_genes, n_batch) if hyper.dispersion == "gene-batch" else (n_genes,)
    own["py_r"] = (n_proteins, n_batch) if hyper.protein_dispersion == "protein-batch" else (n_proteins,)
    if hyper.normalises_input:
        own[EFFICIENCY] = (n_proteins, n_batch)
    return found | Tensors(own)


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Totalvi:
    """The frozen model in torch."""
    from scgraft.model.totalvi import make_totalvi

    hyper, schema, weights = reference.hyper, reference.schema, reference.weights
    block = schema.block(PROTEINS)
    mask = np.ones((len(schema.levels[block.panel]), len(block.features)), bool)
    saved = reference.attributes.get("protein_mask")
    if saved is not None:
        mask[: len(saved)] = saved
    return make_totalvi(hyper, schema, weights, slots(hyper, schema, weights), mask, device=device, dtype=dtype)


def refuse_export(reference: Reference) -> str:
    """Why scvi-tools could not load an export, "" where it can."""
    if not reference.hyper.normalises_input:
        return (
            f"scvi-tools {reference.scvi_version} saved it, and 1.3.1 and later cannot load TOTALVI models of before 1.3.1: counts enter "
            "their encoder in another way. Share the graft, which is applied to the reference as it is."
        )
    return ""


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """A background of proteins under an encoder of genes and proteins together."""
    return {"background_pro_alpha", "encoder.z_mean_encoder.weight"} <= weights.keys()


FAMILY = Family(
    name="TOTALVI",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("Gayoso et al. (Nat. Methods 2021, doi:10.1038/s41592-020-01050-x)",),
    encoder_weight="encoder.encoder.fc_layers.Layer 0.0.weight",
    blocks=(PROTEINS,),
    scvi_options=ScviOptions(as_saved=True),
    refuse_export=refuse_export,
)

"""scPoli of scArches: an autoencoder whose conditions are embeddings (De Donno et al., Nature Methods 2023).

A new batch is one row of an embedding, and one column of the dispersions for each combination of conditions. Its files are read
by :mod:`scgraft.reference.scarches_format`; they have no registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scgraft.errors import UnsupportedModel
from scgraft.model.families.family import Family
from scgraft.model.options import Hyper, size
from scgraft.model.tensors import COUNTER, Shapes, Tensors, linear
from scgraft.values.names import BATCH, covariate_name, shown
from scgraft.values.reference import Schema
from scgraft.values.slot import Role, Slot

if TYPE_CHECKING:
    import numpy as np
    import torch

    from scgraft.model.vae import Vae
    from scgraft.values.reference import Reference

LOSSES = {"nb": "nb", "zinb": "zinb", "mse": "normal"}
OTHER_LOSSES = {
    "poisson": "its decoder then makes one count a cell, whatever the cell has",
    "bernoulli": "scArches' own model then returns nothing",
}
ENCODER = "encoder.FC.L0.expr_L.weight"


def read_hyper(options: Mapping[str, Any], weights: Mapping[str, np.ndarray], schema: Schema) -> Hyper:
    """Hyper-parameters from the attributes of ``attr.pkl``, which the reader has checked.

    Raises
    ------
    UnsupportedModel
        A loss that cannot be used, or sizes that no model has.
    """
    loss = options["recon_loss_"]
    if loss not in LOSSES:
        why = f" ({OTHER_LOSSES[loss]})" if loss in OTHER_LOSSES else ""
        raise UnsupportedModel(
            f"The scPoli model was trained with recon_loss={shown(loss)}{why}; supported are {', '.join(LOSSES)}."
        )
    hidden = tuple(size("hidden_layer_sizes", n, "scPoli") for n in options["hidden_layer_sizes_"])
    if not hidden or not len(schema.batches):
        raise UnsupportedModel(
            "The scPoli model has no hidden layers or no conditions; scgraft maps onto models with both."
        )
    norm = options.get("embedding_max_norm_", 1.0)
    batch_norm = bool(options["use_bn_"])
    return Hyper(
        n_latent=size("latent_dim", options["latent_dim_"], "scPoli"),
        n_layers=len(hidden),
        n_hidden=hidden[-1],
        n_labels=max(len(schema.labels), 1),
        dispersion="gene-batch",
        gene_likelihood=LOSSES[loss],
        log_variational=loss != "mse",
        encode_covariates="encoder" in options["inject_condition_"],
        deeply_inject_covariates=False,
        use_batch_norm="both" if batch_norm else "none",
        use_layer_norm="both" if options["use_ln_"] and not batch_norm else "none",
        batch_representation="embedding",
        hidden_sizes=hidden,
        embedding_dims=tuple(size("embedding_dims", n, "scPoli") for n in options["embedding_dims_"]),
        embedding_norm=None if norm is None else float(norm),
        takes_values=loss == "mse",
    )


def conditions(schema: Schema) -> dict[str, int]:
    """Number of levels of each condition key by the name of its covariate, in the order of the embeddings."""
    combined = {covariate_name(c.key) for c in schema.categorical if c.of}
    return {name: len(levels) for name, levels in schema.levels.items() if name not in combined}


def slots(hyper: Hyper, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """Every slot of the model: a row of each embedding, and a column of the dispersions for each combination."""
    role: Role = "encoder" if hyper.encode_covariates else "decoder"
    found = [
        Slot(f"embeddings.{i}.weight", 0, 0, n, n, name, role) for i, (name, n) in enumerate(conditions(schema).items())
    ]
    if "theta" in weights:
        combined = next((c for c in schema.categorical if c.of), None)
        name = BATCH if combined is None else covariate_name(combined.key)
        n = len(schema.levels[name])
        found.append(Slot("theta", 1, 0, n, n, name, "dispersion", not hyper.takes_values))
    return tuple(found)


def tensors(hyper: Hyper, schema: Schema) -> Tensors:
    """Names and shapes of every tensor."""
    n_genes, width, sizes = len(schema.genes), sum(hyper.embedding_dims), hyper.hidden_sizes
    needed: Shapes = {}
    for i, (n, d) in enumerate(zip(conditions(schema).values(), hyper.embedding_dims, strict=True)):
        needed[f"embeddings.{i}.weight"] = (n, d)
    needed |= linear("encoder.FC.L0.expr_L", n_genes, sizes[0])
    for i in range(1, len(sizes)):
        needed |= linear(f"encoder.FC.L{i}", sizes[i - 1], sizes[i])
    for head in ("mean_encoder", "log_var_encoder"):
        needed |= linear(f"encoder.{head}", sizes[-1], hyper.n_latent)
    back = sizes[::-1]
    needed |= linear("decoder.FirstL.L0.expr_L", hyper.n_latent, back[0], bias=False)
    for i in range(1, len(back)):
        needed |= linear(f"decoder.HiddenL.L{i}", back[i - 1], back[i], bias=False)
    if hyper.takes_values:
        needed |= linear("decoder.recon_decoder.0", back[-1], n_genes)
    else:
        combined = next((len(c.levels) for c in schema.categorical if c.of), len(schema.batches))
        needed |= {"theta": (n_genes, combined)} | linear("decoder.mean_decoder.0", back[-1], n_genes)
    if hyper.gene_likelihood == "zinb":
        needed |= linear("decoder.dropout_decoder", back[-1], n_genes)
    norms = _norms(hyper) if hyper.use_batch_norm == "both" else {}
    needed |= {
        f"{norm}.{part}": (n,)
        for norm, n in norms.items()
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    seen = {"encoder.FC.L0.cond_L.weight": (sizes[0], width)} if hyper.encode_covariates else {}
    # Whether the decoder sees the conditions is seen in its weights.
    spare: Shapes = {"decoder.FirstL.L0.cond_L.weight": (back[0], width)}
    return Tensors(needed | seen, spare | {f"{norm}.{COUNTER}": () for norm in norms})


def _norms(hyper: Hyper) -> dict[str, int]:
    """Widths of the batch norms by name."""

    def named() -> Iterator[tuple[str, int]]:
        back = hyper.hidden_sizes[::-1]
        yield from ((f"encoder.FC.N{i}", n) for i, n in enumerate(hyper.hidden_sizes))
        yield "decoder.FirstL.N0", back[0]
        yield from ((f"decoder.HiddenL.N{i}", n) for i, n in enumerate(back) if i)

    return dict(named())


def build(reference: Reference, device: torch.device, dtype: torch.dtype) -> Vae:
    """The frozen model in torch."""
    from scgraft.model.scpoli import make_scpoli

    hyper, schema, weights = reference.hyper, reference.schema, reference.weights
    return make_scpoli(hyper, schema, weights, slots(hyper, schema, weights), device=device, dtype=dtype)


def refuse_export(reference: Reference) -> str:
    """Why scArches could not load an export, "" where it can."""
    if reference.attributes["saved"]["lacks_spread"]:
        return (
            "Its file has prototypes without their covariances, and scArches loads no such file. Share the graft, which is applied to the "
            "reference as it is."
        )
    return ""


def recognises(weights: Mapping[str, np.ndarray]) -> bool:
    """An encoder that takes genes and embedded conditions."""
    return {ENCODER, "embeddings.0.weight"} <= weights.keys()


FAMILY = Family(
    name="scPoli",
    read_hyper=read_hyper,
    slots=slots,
    tensors=tensors,
    build=build,
    recognises=recognises,
    citations=("De Donno et al. (Nat. Methods 2023, doi:10.1038/s41592-023-02035-2)",),
    encoder_weight=ENCODER,
    scarches=True,
    refuse_export=refuse_export,
)

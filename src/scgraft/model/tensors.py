"""Which tensors a state dict must hold, and of which shape, as the options say; no torch.

A file is compared with this before it is believed: a bias or a running mean that is missing would silently make another
function of the model. Source of the layout: the state dicts of scvi-tools 0.8-1.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.model.options import EMBEDDING, ClassifierOptions, Hyper
from scgraft.values.names import BATCH
from scgraft.values.reference import Schema

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
COUNTER = "num_batches_tracked"  # how often a batch norm was trained: a whole number that no output depends on
NAMED = 6  # tensors that an error names of each kind; the rest are counted


@dataclass(frozen=True)
class Tensors:
    """Tensors of a model by name: those that its numbers need, and those that a file may hold besides.

    What is in `spare` changes no number (the library encoder of a model that takes the library as observed), but has to
    have its shape where it is there. Anything else in a file means an option that was not read.
    """

    needed: Shapes
    spare: Shapes = field(default_factory=dict)

    def __or__(self, other: Tensors) -> Tensors:
        return Tensors(self.needed | other.needed, self.spare | other.spare)


def linear(prefix: str, n_in: int, n_out: int, *, bias: bool = True) -> Shapes:
    """Tensors of a linear map."""
    found: Shapes = {f"{prefix}.weight": (n_out, n_in)}
    return found | ({f"{prefix}.bias": (n_out,)} if bias else {})


def stack(prefix: str, widths: Iterable[int], n_hidden: int, *, batch_norm: bool, bias: bool = True) -> Tensors:
    """Tensors of scvi-tools' FCLayers, with the number of inputs of each layer, covariates included."""
    needed: Shapes = {}
    spare: Shapes = {}
    for i, width in enumerate(widths):
        layer = f"{prefix}.fc_layers.Layer {i}"
        needed |= linear(f"{layer}.0", width, n_hidden, bias=bias)
        if batch_norm:
            needed |= {f"{layer}.1.{name}": (n_hidden,) for name in ("weight", "bias", "running_mean", "running_var")}
            spare[f"{layer}.1.{COUNTER}"] = ()
    return Tensors(needed, spare)


def autoencoder(hyper: Hyper, schema: Schema) -> Tensors:
    """Tensors that SCVI and SCANVI share."""
    n_genes, n_batch, d, width = len(schema.genes), len(schema.batches), hyper.n_latent, hyper.n_hidden
    embedded = hyper.batch_representation == "embedding"
    levels = {name: len(names) for name, names in schema.levels.items() if not (embedded and name == BATCH)}
    columns = sum(n for n in levels.values() if n > 1)  # scvi-tools writes no column for a single level
    beside = len(schema.continuous) + hyper.embedding_dim * embedded
    encoded = columns * hyper.encode_covariates
    deep = hyper.deeply_inject_covariates
    enters = [n_genes + beside * hyper.encode_covariates + encoded]
    later = [width + encoded * deep] * (hyper.n_layers - 1)
    norm_encoder, norm_decoder = (hyper.use_batch_norm in (scope, "both") for scope in ("encoder", "decoder"))

    z_encoder = stack("z_encoder.encoder", enters + later, width, batch_norm=norm_encoder)
    for head in ("z_encoder.mean_encoder", "z_encoder.var_encoder"):
        z_encoder.needed.update(linear(head, width, d))
    library = stack("l_encoder.encoder", enters, width, batch_norm=norm_encoder)
    for head in ("l_encoder.mean_encoder", "l_encoder.var_encoder"):
        library.needed.update(linear(head, width, 1))
    library.needed.update(dict.fromkeys(("library_log_means", "library_log_vars"), (1, n_batch)))
    inputs = [d + beside + columns] + [width + columns * deep] * (hyper.n_layers - 1)
    decoder = stack("decoder.px_decoder", inputs, width, batch_norm=norm_decoder)
    decoder.needed.update(linear("decoder.px_scale_decoder.0", width, n_genes))
    if embedded:
        decoder.needed[EMBEDDING] = (n_batch, hyper.embedding_dim)
    return (
        z_encoder
        | decoder
        | when(hyper.models_library, library)
        | when(hyper.gene_likelihood == "zinb", Tensors(linear("decoder.px_dropout_decoder", width, n_genes)))
        | dispersion(hyper, n_genes, n_batch)
        | when(
            hyper.dispersion == "gene-cell" and hyper.gene_likelihood != "poisson",
            Tensors(linear("decoder.px_r_decoder", width, n_genes)),
        )
    )


def when(used: bool, tensors: Tensors) -> Tensors:
    """The tensors as they are, or, where the options leave them unused, all of them spare."""
    return tensors if used else Tensors({}, tensors.needed | tensors.spare)


def dispersion(hyper: Hyper, n_genes: int, n_batch: int) -> Tensors:
    """The counts' dispersion of each gene, of each level where it has several; of each cell it is a head of the decoder."""
    more: dict[str, Shape] = {"gene": (), "gene-batch": (n_batch,), "gene-label": (hyper.n_labels,)}
    if hyper.dispersion not in more:
        return Tensors({})
    return when(hyper.gene_likelihood != "poisson", Tensors({"px_r": (n_genes, *more[hyper.dispersion])}))


def classifier_and_second_latent(hyper: Hyper) -> Tensors:
    """Tensors that SCANVI adds to the autoencoder."""
    d, width, n_labels = hyper.n_latent, hyper.n_hidden, hyper.n_labels
    norm_encoder, norm_decoder = (hyper.use_batch_norm in (scope, "both") for scope in ("encoder", "decoder"))
    hidden = hyper.classifier or ClassifierOptions()
    found = Tensors({"y_prior": (1, n_labels)})
    if hidden.n_layers:
        widths = [d] + [hidden.n_hidden] * (hidden.n_layers - 1)
        prefix = "classifier.classifier.0"
        found |= stack(prefix, widths, hidden.n_hidden, batch_norm=norm_encoder, bias=hidden.bias)
        found.needed.update(linear("classifier.classifier.1", hidden.n_hidden, n_labels))
    else:
        found.needed.update(linear("classifier.classifier.0", d, n_labels))
    columns = n_labels if n_labels > 1 else 0
    inputs = [d + columns] + [width + columns] * (hyper.n_layers - 1)
    for stem, inner, norm in (("encoder_z2_z1", "encoder", norm_encoder), ("decoder_z1_z2", "decoder", norm_decoder)):
        found |= stack(f"{stem}.{inner}", inputs, width, batch_norm=norm)
        for head in ("mean", "var"):
            found.needed.update(linear(f"{stem}.{head}_{inner}", width, d))
    return found


def check_tensors(weights: Mapping[str, np.ndarray], expected: Tensors | None, name: str) -> None:
    """Compare a state dict with what the options and the registry imply, and look at its values.

    Without `expected` (a family of somebody else's that does not list them), only at its values.

    Raises
    ------
    CorruptFile
        Tensors are missing, of another shape, or not of this model; all three kinds are listed. Or values that make
        no model: not finite, or a variance below zero.
    """
    faults = [] if expected is None else _faults(weights, expected)
    if faults:
        raise CorruptFile(
            f"The weights of {name} are not those of the model that its options and registry (genes, covariates and their "
            f"levels) describe; the files of this model contradict one another. {'; '.join(faults)}. Download it again; if "
            "that does not help, ask its author for a new export."
        )
    infinite = [key for key in weights if not np.isfinite(weights[key]).all()]
    if infinite:
        more = f" and {len(infinite) - NAMED} more" if len(infinite) > NAMED else ""
        raise CorruptFile(
            f"{name} holds weights that are NaN or infinite (in {', '.join(infinite[:NAMED])}{more}): its training "
            "diverged, or the file was changed. No cell could be mapped with it."
        )
    negative = [key for key in weights if key.endswith(".running_var") and weights[key].min(initial=0) < 0]
    if negative or ("y_prior" in weights and weights["y_prior"].min(initial=1) <= 0):
        raise CorruptFile(
            f"{name} holds impossible values in {', '.join(negative or ['y_prior'])}: variances and label priors are never "
            "below zero. The file was changed; download it again."
        )


def _faults(weights: Mapping[str, np.ndarray], expected: Tensors) -> list[str]:
    known = expected.needed | expected.spare
    missing = sorted(set(expected.needed) - set(weights))
    unexpected = sorted(set(weights) - set(known))
    shaped = [
        f"{key} is {weights[key].shape} instead of {shape}"
        for key, shape in sorted(known.items())
        if key in weights and weights[key].shape != shape
    ]
    return [
        f"{word} {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        for word, names in (("missing:", missing), ("of another shape:", shaped), ("unexpected:", unexpected))
        if names
    ]

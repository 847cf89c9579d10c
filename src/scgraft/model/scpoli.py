"""scPoli's tensors as the shared autoencoder: conditions as embeddings, a dispersion for each combination of them.

Source: De Donno et al., Nature Methods 2023 (doi:10.1038/s41592-023-02035-2); of the layout: the state dicts of scArches 0.5
and 0.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from scgraft.model.layers import Conditions, Layer, Stack, Table, make_head, make_linear, make_table, tensor
from scgraft.model.options import Hyper, Weights
from scgraft.model.vae import Vae
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

NORM_EPS = 1e-5  # of torch's own batch norm, which scArches does not change
# A squared error is, but for a constant, the likelihood of a normal distribution with this standard deviation.
SQUARED_ERROR = 0.5**0.5


def make_scpoli(
    hyper: Hyper,
    schema: Schema,
    weights: Weights,
    own: Sequence[Slot],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Vae:
    """Build the frozen model from a reference's state dict and its slots `own`."""
    covariates, width = list(schema.levels), sum(hyper.embedding_dims)

    def put(array: np.ndarray) -> torch.Tensor:
        return tensor(array, device, dtype)

    def layer(linear: str, norm: str, weight: np.ndarray | None = None) -> Layer:
        scale = shift = None
        if f"{norm}.running_mean" in weights:
            mean, variance = (weights[f"{norm}.running_{part}"].astype(np.float64) for part in ("mean", "var"))
            factor = weights[f"{norm}.weight"] / np.sqrt(variance + NORM_EPS)
            scale, shift = put(factor), put(weights[f"{norm}.bias"] - mean * factor)
        bias = weights.get(f"{linear}.bias")
        matrix = weights[f"{linear}.weight"] if weight is None else weight
        normed = hyper.use_layer_norm == "both"
        return Layer(put(matrix), None if bias is None else put(bias), (), scale, shift, normed)

    last = len(hyper.hidden_sizes) - 1
    encoder = [layer("encoder.FC.L0.expr_L", "encoder.FC.N0")]
    encoder += [layer(f"encoder.FC.L{i}", f"encoder.FC.N{i}") for i in range(1, last + 1)]
    first = weights["decoder.FirstL.L0.expr_L.weight"]
    # A decoder that sees no condition is one whose columns for them are zero.
    beside = weights.get("decoder.FirstL.L0.cond_L.weight", np.zeros((len(first), width), np.float32))
    decoder = [layer("decoder.FirstL.L0.expr_L", "decoder.FirstL.N0", np.hstack([first, beside]))]
    decoder += [layer(f"decoder.HiddenL.L{i}", f"decoder.HiddenL.N{i}") for i in range(1, last + 1)]
    tables = {s.key: make_table(weights, s, covariates, device, dtype) for s in own}
    dispersion: torch.Tensor | Table | None = tables.pop("theta", None)
    if hyper.takes_values:
        dispersion = torch.full((len(schema.genes),), math.log(SQUARED_ERROR), device=device, dtype=dtype)
    conditions = weights.get("encoder.FC.L0.cond_L.weight", np.zeros((len(encoder[0].weight), 0), np.float32))
    head = "decoder.recon_decoder.0" if hyper.takes_values else "decoder.mean_decoder.0"
    zinb = hyper.gene_likelihood == "zinb"
    return Vae(
        hyper=hyper,
        gene_weight=encoder[0].weight.T.contiguous(),
        extra_weight=put(conditions),
        encoder=Stack(tuple(encoder)),
        mean=make_linear(weights, "encoder.mean_encoder", device, dtype),
        variance=make_linear(weights, "encoder.log_var_encoder", device, dtype),
        library_extra=None,
        library_encoder=None,
        library_mean=None,
        library_variance=None,
        library_prior=None,
        embedding=Conditions(tuple(tables.values()), hyper.embedding_norm),
        decoder=Stack(tuple(decoder)),
        scale_decoder=make_head(weights, head, device, dtype),
        dropout_decoder=make_head(weights, "decoder.dropout_decoder", device, dtype) if zinb else None,
        dispersion_decoder=None,
        dispersion=dispersion,
    )

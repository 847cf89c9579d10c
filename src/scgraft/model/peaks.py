"""PEAKVI's tensors as the shared autoencoder: a decoder of probabilities, and a depth that is read from the counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scgraft.model.layers import Stack, make_head, make_linear, make_stack, tensor
from scgraft.model.options import Hyper, Weights
from scgraft.model.vae import Vae
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot


def make_peak_vae(
    hyper: Hyper,
    schema: Schema,
    weights: Weights,
    own: Sequence[Slot],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Vae:
    """Build the frozen model from a reference's state dict and its slots `own`.

    The depth has a layer norm and no batch norm, whatever the options say; a model without one has none in its weights.
    """
    covariates, n_regions = list(schema.levels), len(schema.genes)

    def stack(prefix: str, norm: bool) -> Stack:
        return make_stack(
            weights, prefix, own, covariates, layer_norm=norm, activation="leaky_relu", device=device, dtype=dtype
        )

    encoder = stack("z_encoder.encoder", hyper.use_layer_norm in ("encoder", "both"))
    first, depth = [encoder.layers[0].weight], None
    if "d_encoder.output.0.weight" in weights:
        depth = stack("d_encoder.px_decoder", True)
        first.append(depth.layers[0].weight)
    factors = weights.get("region_factors")
    return Vae(
        hyper=hyper,
        gene_weight=torch.cat([w[:, :n_regions] for w in first]).T.contiguous(),
        extra_weight=first[0][:, n_regions:],
        encoder=encoder,
        mean=make_linear(weights, "z_encoder.mean_encoder", device, dtype),
        variance=make_linear(weights, "z_encoder.var_encoder", device, dtype),
        library_extra=None if depth is None else first[1][:, n_regions:],
        library_encoder=depth,
        library_mean=None if depth is None else make_linear(weights, "d_encoder.output.0", device, dtype),
        library_variance=None,
        library_prior=None,
        embedding=None,
        decoder=stack("z_decoder.px_decoder", hyper.use_layer_norm in ("decoder", "both")),
        scale_decoder=make_head(weights, "z_decoder.output.0", device, dtype),
        dropout_decoder=None,
        dispersion_decoder=None,
        dispersion=None,
        region_factor=None if factors is None else torch.sigmoid(tensor(factors, device, dtype)),
    )

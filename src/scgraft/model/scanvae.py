"""The parts that SCANVI adds to the autoencoder: a classifier on the latent and a second latent under each label.

Source: Xu et al., Molecular Systems Biology 2021 (doi:10.15252/msb.20209620).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scgraft.model.layers import Linear, Rows, Stack, make_linear, make_stack, tensor
from scgraft.model.likelihoods import kl_normal, log_density
from scgraft.model.options import ClassifierOptions, Hyper, slots
from scgraft.model.vae import Cells, Expression, Terms, Vae, make_vae
from scgraft.values.blocks import BlockCounts
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scgraft.model.stored import CountStore


@dataclass(frozen=True)
class Coder:
    """Encoder or decoder between the two latents: layers that see the label, then mean and variance."""

    stack: Stack
    mean: Linear
    variance: Linear
    floor: float

    def __call__(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        h = self.stack(x, labels[:, None], {})
        return self.mean(h), torch.exp(self.variance(h)) + self.floor


@dataclass(frozen=True)
class Scanvae:
    """SCANVI with every reference weight frozen. The cells of a query are unlabelled."""

    vae: Vae
    classifier_stack: Stack | None
    classifier: Linear
    second_encoder: Coder
    second_decoder: Coder
    label_prior: Tensor

    @property
    def hyper(self) -> Hyper:
        """Hyper-parameters of the autoencoder."""
        return self.vae.hyper

    @property
    def n_labels(self) -> int:
        """Number of classes that the model tells apart; the unlabeled category only where it is one of them."""
        return self.label_prior.shape[-1]

    @property
    def noise_width(self) -> int:
        """Standard normal numbers that `terms` needs for each cell."""
        return self.vae.noise_width + self.n_labels * self.hyper.n_latent

    def classify(self, z: Tensor) -> Tensor:
        """Logits of the classes from the latent, (n, C)."""
        h = z if self.classifier_stack is None else self.classifier_stack(z, z.new_zeros(len(z), 0).long(), {})
        return self.classifier(h)

    @property
    def autoencoder(self) -> Vae:
        """The model without its classifier and its second latent."""
        return self.vae

    def terms(self, cells: Cells, rows: Rows, noise: Tensor, *, value: bool = True) -> Terms:
        """Terms of the negative ELBO of unlabelled cells, with one draw from each posterior.

        The encoder's columns move every term; the decoder's columns only the likelihood of the counts. The
        classifier and the second latent are frozen, but the gradient of the first latent goes through them.
        """
        first = self.vae.terms(cells, rows, noise[:, : self.vae.noise_width], value=value)
        z1, n, n_labels, width = first.sample, len(first.sample), self.n_labels, self.hyper.n_latent
        probability = torch.softmax(self.classify(z1), dim=-1)
        labels = torch.arange(n_labels, device=z1.device).repeat_interleave(n)
        repeated = z1.repeat(n_labels, 1)
        mean2, variance2 = self.second_encoder(repeated, labels)
        noise2 = noise[:, self.vae.noise_width :].reshape(n, n_labels, width).transpose(0, 1).reshape(-1, width)
        mean1, variance1 = self.second_decoder(mean2 + variance2.sqrt() * noise2, labels)

        def expected(per_label: Tensor) -> Tensor:
            return (per_label.view(n_labels, n).T * probability).sum(-1)

        latent = log_density(z1, first.mean, first.variance) - expected(log_density(repeated, mean1, variance1))
        log_ratio = torch.log(probability + 1e-30) - torch.log(self.label_prior)
        kl = expected(kl_normal(mean2, variance2, 0.0, 1.0).sum(-1)) + (probability * log_ratio).sum(-1)
        return replace(first, latent=latent, kl=kl)

    @property
    def by_hand(self) -> bool:
        """Whether the likelihood is computed from the stored counts alone."""
        return self.vae.by_hand

    def store(self, counts: csr_matrix, cells: Cells) -> CountStore:
        """Counts of the cells on the model's device."""
        return self.vae.store(counts, cells)

    def product(self, counts: csr_matrix, blocks: Mapping[str, BlockCounts] | None = None) -> Tensor:
        """First product of the encoders over the genes."""
        return self.vae.product(counts)

    def encode(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the latent."""
        return self.vae.encode(cells, rows)

    def library(self, cells: Cells, rows: Rows) -> Tensor:
        """Log of the counts of each cell."""
        return self.vae.library(cells, rows)

    def encode_library(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the log library size."""
        return self.vae.encode_library(cells, rows)

    def latent(self, sample: Tensor) -> Tensor:
        """The latent that the decoder sees."""
        return self.vae.latent(sample)

    def decode(self, z: Tensor, library: Tensor, cells: Cells, rows: Rows) -> Expression:
        """Count distribution from the latent."""
        return self.vae.decode(z, library, cells, rows)

    def log_likelihood(self, counts: Tensor, expression: Expression, *, value: bool = True) -> Tensor:
        """Log-likelihood of the counts, summed over genes."""
        return self.vae.log_likelihood(counts, expression, value=value)


def make_scanvae(
    hyper: Hyper,
    schema: Schema,
    weights: Mapping[str, np.ndarray],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Scanvae:
    """Build the frozen model from a reference's state dict."""
    n_labels, hidden = hyper.n_labels, hyper.classifier or ClassifierOptions()
    encoder_norm = hyper.use_layer_norm in ("encoder", "both")
    decoder_norm = hyper.use_layer_norm in ("decoder", "both")

    def coder(stem: str, inner: str, layer_norm: bool, floor: float) -> Coder:
        prefix, size = f"{stem}.{inner}", n_labels if n_labels > 1 else 0
        own: list[Slot] = []
        while (key := f"{prefix}.fc_layers.Layer {len(own)}.0.weight") in weights:
            start = weights[key].shape[1] - size
            own.append(Slot(key, 1, start, size, n_labels, "label", "prior", False))
        stack = make_stack(weights, prefix, own, ["label"], layer_norm=layer_norm, device=device, dtype=dtype)
        mean = make_linear(weights, f"{stem}.mean_{inner}", device, dtype)
        return Coder(stack, mean, make_linear(weights, f"{stem}.var_{inner}", device, dtype), floor)

    stack = None
    if hidden.n_layers:
        stack = make_stack(
            weights,
            "classifier.classifier.0",
            [],
            [],
            layer_norm=encoder_norm,
            activation="relu" if hidden.use_activation else "none",
            device=device,
            dtype=dtype,
        )
    return Scanvae(
        vae=make_vae(hyper, schema, weights, slots(hyper, schema, weights), device=device, dtype=dtype),
        classifier_stack=stack,
        classifier=make_linear(weights, f"classifier.classifier.{int(hidden.n_layers > 0)}", device, dtype),
        second_encoder=coder("encoder_z2_z1", "encoder", encoder_norm, 1e-4),
        second_decoder=coder("decoder_z1_z2", "decoder", decoder_norm, 0.0),
        label_prior=tensor(weights["y_prior"], device, dtype),
    )

"""MULTIVI in eval mode, with every reference weight frozen: a mixture of encoders over the kinds of features that a cell has.

Source: Ashuach et al., Nature Methods 2023 (doi:10.1038/s41592-023-01909-9); of the layout and the formulas: the state dicts and
numbers of scvi-tools 1.0-1.4. Their mixture takes the square root of the weights for the variance, and their penalty standard
deviations that are square roots of standard deviations; both are kept, as the weights were trained with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, logsigmoid

from scgraft.model import likelihoods
from scgraft.model.kinds import KINDS, WEIGHTS, mean_weights, n_proteins
from scgraft.model.layers import (
    LEAK,
    Activation,
    Layer,
    Linear,
    Rows,
    Stack,
    make_head,
    make_linear,
    make_stack,
    tensor,
)
from scgraft.model.options import Hyper, Weights
from scgraft.model.stored import CountStore, StoredCounts, store_counts
from scgraft.model.totalvi import HEADS, Proteins, TwoStage
from scgraft.model.vae import Cells, Expression, Terms
from scgraft.numerics.tensors import as_tensor
from scgraft.values.blocks import PROTEINS, BlockCounts
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NOTHING = -torch.inf  # log of what multiplies the output of a kind that the cell lacks


@dataclass(frozen=True)
class Encoder:
    """What one kind of feature enters: the columns of covariates beside it, hidden layers, and the posterior or the library."""

    extra: Tensor
    hidden: Stack
    mean: Linear
    variance: Linear | None

    def h(self, product: Tensor, cells: Cells, rows: Rows) -> Tensor:
        """Output of the hidden layers, from the cached product of the features."""
        first = product + cells.continuous @ self.extra.T if self.extra.shape[1] else product
        return self.hidden.from_product(first, cells.codes, rows)


@dataclass(frozen=True)
class Multivi:
    """The frozen model. Its methods take the graft's rows; an empty mapping is the reference itself."""

    hyper: Hyper
    n_genes: int
    inputs: tuple[Tensor, Tensor, Tensor]
    encoders: tuple[Encoder, Encoder, Encoder]
    libraries: tuple[Encoder, Encoder]
    weights: Tensor
    cell_weights: Tensor | None
    decoders: tuple[Stack, Stack]
    scale_decoder: Layer
    dropout_decoder: Layer | None
    dispersion: Tensor | None
    region_decoder: Layer
    region_factor: Tensor | None
    heads: Mapping[str, TwoStage]
    protein_dispersion: Tensor

    @property
    def noise_width(self) -> int:
        """Standard normal numbers that `terms` needs for each cell: of the latent, and of the proteins' background."""
        return self.hyper.n_latent + len(self.protein_dispersion)

    @property
    def by_hand(self) -> bool:
        """Whether the likelihood is computed from the stored counts alone."""
        return False

    @property
    def autoencoder(self) -> Multivi:
        """The model itself."""
        return self

    def product(self, counts: csr_matrix, blocks: Mapping[str, BlockCounts]) -> Tensor:
        """First products over each kind, (n, 5 H + 3): encoders of the latent, of library and depth, and which kinds a cell has."""
        like, width = self.inputs[0], self.hyper.n_hidden
        parts, there = [], []
        for matrix, weight in zip((counts[:, : self.n_genes], counts[:, self.n_genes :]), self.inputs[:2], strict=True):
            parts.append(_product(matrix, weight))
            there.append(np.asarray(matrix.sum(axis=1)).ravel() > 0)
        own = np.zeros((counts.shape[0], 0), np.float32)
        if PROTEINS in blocks and len(self.inputs[2]):
            own = blocks[PROTEINS].counts.toarray()
        proteins = as_tensor(own).to(like) @ self.inputs[2][: own.shape[1]]
        there.append(own.sum(axis=1) > 0)
        has = as_tensor(np.stack(there, axis=1).astype(np.float32)).to(like)
        genes, regions = parts
        return torch.cat([genes[:, :width], regions[:, :width], proteins, genes[:, width:], regions[:, width:], has], 1)

    def has(self, cells: Cells) -> Tensor:
        """Which kinds of features a cell has counts of, (n, 3) of ones and zeros: how scvi-tools tells what was measured."""
        return cells.product[:, -len(KINDS) :]

    def _part(self, cells: Cells, number: int) -> Tensor:
        width = self.hyper.n_hidden
        return cells.product[:, number * width : (number + 1) * width]

    def encode_kinds(self, cells: Cells, rows: Rows) -> list[tuple[Tensor, Tensor]]:
        """Posterior mean and variance (n, d) by each kind alone."""
        found = []
        for number, encoder in enumerate(self.encoders):
            h = encoder.h(self._part(cells, number), cells, rows)
            assert encoder.variance is not None
            found.append((encoder.mean(h), torch.exp(encoder.variance(h))))
        return found

    def _mixed(self, kinds: Sequence[tuple[Tensor, Tensor]], cells: Cells) -> tuple[Tensor, Tensor]:
        weight = self.weights
        if self.cell_weights is not None and cells.own is not None:
            weight = self.cell_weights[cells.own]
        share = torch.where(self.has(cells) > 0, weight, NOTHING)
        # A cell without any count has no posterior: all kinds stand for it, so that no NaN spreads.
        share = torch.softmax(torch.where(torch.isinf(share).all(dim=1, keepdim=True), 0.0, share), dim=1)
        means, variances = (torch.stack(part, dim=1) for part in zip(*kinds, strict=True))
        share = share[:, :, None]
        return (share * means).sum(dim=1), (share.sqrt() * variances).sum(dim=1)

    def encode(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the latent, each (n, d)."""
        return self._mixed(self.encode_kinds(cells, rows), cells)

    def predicted_library(self, cells: Cells, rows: Rows) -> Tensor:
        """Log of the RNA library as the model predicts it, and of the depth of the regions, (n, 2)."""
        logs = []
        for number, encoder in enumerate(self.libraries):
            h = encoder.mean(encoder.h(self._part(cells, 3 + number), cells, rows))
            logs.append(logsigmoid(h) if number else leaky_relu(h, LEAK))
        return torch.cat(logs, dim=1)

    def library(self, cells: Cells, rows: Rows) -> Tensor:
        """The same, minus infinity for a kind that the cell lacks: nothing of it is expected to be seen."""
        return torch.where(self.has(cells)[:, :2] > 0, self.predicted_library(cells, rows), NOTHING)

    def encode_library(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """No latent of this model."""
        raise NotImplementedError("MULTIVI has no latent library size.")

    def latent(self, sample: Tensor) -> Tensor:
        """The latent that the decoder sees, from a sample of the posterior."""
        return torch.softmax(sample, dim=-1) if self.hyper.latent_distribution == "ln" else sample

    def decode(self, z: Tensor, library: Tensor, cells: Cells, rows: Rows) -> Expression:
        """Genes and regions from the latent (n, d); `library` (n, 2) as from :meth:`library`, or (n, 1) at full depth.

        `scale` holds frequencies of the genes, which sum to one, and probabilities that a region is open.
        """
        d, codes = torch.cat([z, cells.continuous], dim=1), cells.codes
        h = self.decoders[0](d, codes, rows)
        frequency = torch.softmax(self.scale_decoder(h, codes, rows), dim=-1)
        zi_logits = None if self.dropout_decoder is None else self.dropout_decoder(h, codes, rows)
        open_ = torch.sigmoid(self.region_decoder(self.decoders[1](d, codes, rows), codes, rows))
        seen = open_ * torch.exp(library[:, 1:2]).clamp(max=1.0) if library.shape[1] > 1 else open_
        if self.region_factor is not None:
            seen = seen * self.region_factor
        theta = None if self.dispersion is None else torch.exp(self.dispersion)
        rate = torch.exp(library[:, :1]) * frequency
        return Expression(
            torch.cat([frequency, open_], 1), torch.cat([rate, seen], 1), theta, zi_logits, open_.shape[1]
        )

    def decode_proteins(self, z: Tensor, cells: Cells, rows: Rows) -> Proteins:
        """Distribution of the protein counts from the latent (n, d)."""
        d, codes = torch.cat([z, cells.continuous], dim=1), cells.codes
        alpha = self.heads["py_alpha"](d, codes, rows)
        return Proteins(
            alpha=alpha,
            beta=torch.exp(self.heads["py_beta"](d, codes, rows)),
            fore=torch.relu(self.heads["py_fore"](d, codes, rows)) + 1 + 1e-8,
            mixing=self.heads["py_mixing"](d, codes, rows),
            efficiency=torch.ones_like(alpha),
            dispersion=torch.exp(self.protein_dispersion),
        )

    def store(self, counts: csr_matrix, cells: Cells) -> CountStore:
        """Counts of the cells on the model's device."""
        return store_counts(counts, None, self.inputs[0])

    def log_likelihood_of_kinds(
        self, counts: Tensor, expression: Expression, *, value: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of the genes' counts and of the regions that were seen, each (n,)."""
        x, t = counts[:, : self.n_genes], counts[:, self.n_genes :]
        rate, seen = expression.rate[:, : self.n_genes], expression.rate[:, self.n_genes :]
        regions = likelihoods.log_bernoulli(t, seen).sum(-1)
        if expression.theta is None:
            return likelihoods.log_poisson(x, rate).sum(-1), regions
        if expression.zi_logits is None:
            return likelihoods.log_nb(x, rate, expression.theta, value=value).sum(-1), regions
        return likelihoods.log_zinb(x, rate, expression.theta, expression.zi_logits, value=value).sum(-1), regions

    def log_likelihood(self, counts: Tensor, expression: Expression, *, value: bool = True) -> Tensor:
        """Log-likelihood of the counts, summed over genes and regions, (n,); without `value` less what no gradient depends on."""
        genes, regions = self.log_likelihood_of_kinds(counts, expression, value=value)
        return genes + regions

    def log_likelihood_of_proteins(self, p: Proteins, cells: Cells, noise: Tensor) -> Tensor:
        """Log-likelihood of the protein counts that were measured, (n,)."""
        if cells.proteins is None or not len(self.protein_dispersion):
            return torch.zeros_like(cells.product[:, 0])
        back = torch.exp(p.alpha + p.beta * noise)
        background = likelihoods.log_nb(cells.proteins, back, p.dispersion)
        foreground = likelihoods.log_nb(cells.proteins, back * p.fore, p.dispersion)
        log_p = torch.logaddexp(background + logsigmoid(p.mixing), foreground + logsigmoid(-p.mixing))
        return (log_p if cells.measured is None else cells.measured * log_p).sum(-1)

    def penalty(self, kinds: Sequence[tuple[Tensor, Tensor]], cells: Cells) -> Tensor:
        """How far apart the posteriors of the kinds of a cell are, (n,)."""
        has, found = self.has(cells), torch.zeros_like(cells.product[:, 0])
        if self.hyper.modality_penalty == "None":
            return found
        for i, j in combinations(range(len(KINDS)), 2):
            (mean, variance), (other, spread) = kinds[i], kinds[j]
            both = has[:, i] * has[:, j]
            if self.hyper.modality_penalty == "MMD":  # of the whole minibatch, added to every cell
                found = found + (both * torch.linalg.vector_norm(mean - other, dim=1)).sum()
                continue
            one, two = variance.sqrt(), spread.sqrt()
            apart = likelihoods.kl_normal(mean, one, other, two) + likelihoods.kl_normal(other, two, mean, one)
            found = found + both * apart.sum(-1)
        return found

    def terms(self, cells: Cells, rows: Rows, noise: Tensor, *, value: bool = True) -> Terms:
        """Terms of the negative ELBO with one draw from the posterior; the penalty between the kinds is among `latent`."""
        d, counts = self.hyper.n_latent, cells.counts
        assert counts is not None
        dense = counts.dense(sum(map(len, self.inputs[:2]))) if isinstance(counts, StoredCounts) else counts
        kinds = self.encode_kinds(cells, rows)
        mean, variance = cells.posterior or self._mixed(kinds, cells)
        sample = mean + variance.sqrt() * noise[:, :d]
        z, has = self.latent(sample), self.has(cells)
        genes, regions = self.log_likelihood_of_kinds(
            dense, self.decode(z, self.predicted_library(cells, rows), cells, rows), value=value
        )
        proteins = torch.zeros_like(genes)
        if len(self.protein_dispersion):
            own = self.decode_proteins(z, cells, rows)
            proteins = self.log_likelihood_of_proteins(own, cells, noise[:, d:])
        likelihood = (has * torch.stack([genes, regions, proteins], dim=1)).sum(-1)
        kl = likelihoods.kl_normal(mean, variance, 0.0, 1.0).sum(-1)
        return Terms(-likelihood, self.penalty(kinds, cells), kl, torch.zeros_like(kl), sample, mean, variance)


def _product(matrix: csr_matrix, weight: Tensor) -> Tensor:
    """Product of raw counts with the first layers, never densified, (n, H)."""
    if not len(weight):
        return weight.new_zeros(matrix.shape[0], weight.shape[1])
    return torch.nn.functional.embedding_bag(
        as_tensor(matrix.indices).to(weight.device),
        weight,
        as_tensor(matrix.indptr.astype(matrix.indices.dtype, copy=False)).to(weight.device),
        mode="sum",
        per_sample_weights=as_tensor(matrix.data).to(weight),
        include_last_offset=True,
    )


def make_multivi(
    hyper: Hyper,
    schema: Schema,
    weights: Weights,
    own: Sequence[Slot],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Multivi:
    """Build the frozen model from a reference's state dict and its slots `own`."""
    covariates, n_genes = list(schema.levels), len(schema.genes) - schema.n_regions
    sizes = (n_genes, schema.n_regions, n_proteins(schema))

    def stack(prefix: str, norm: bool, kind: Activation) -> Stack:
        return make_stack(
            weights, prefix, own, covariates, layer_norm=norm, activation=kind, device=device, dtype=dtype
        )

    normed = {scope: hyper.use_layer_norm in (scope, "both") for scope in ("encoder", "decoder")}

    def encoder(prefix: str, hidden: str, heads: Sequence[str], n: int, norm: bool) -> tuple[Tensor, Encoder]:
        """First weights of the features (n, H), and the rest of the encoder."""
        layers = stack(f"{prefix}.{hidden}", norm, "leaky_relu")
        linears = [make_linear(weights, f"{prefix}.{head}", device, dtype) for head in heads]
        first, at = layers.layers[0].weight, max(n, 1)
        rest = Encoder(first[:, at:], layers, linears[0], linears[1] if len(linears) > 1 else None)
        return first[:, :n].T.contiguous(), rest

    posterior = [
        encoder(f"z_encoder_{kind}", "encoder", ("mean_encoder", "var_encoder"), n, normed["encoder"])
        for kind, n in zip(KINDS, sizes, strict=True)
    ]
    library = [
        encoder(f"l_encoder_{kind}", "px_decoder", ("output.0",), n, True)
        for kind, n in zip(KINDS[:2], sizes, strict=False)
    ]
    genes, regions = (torch.cat([posterior[i][0], library[i][0]], dim=1) for i in (0, 1))
    decoders = (
        stack("z_decoder_expression.px_decoder", normed["decoder"], "relu"),
        stack("z_decoder_accessibility.px_decoder", normed["decoder"], "leaky_relu"),
    )
    zinb, counts = hyper.gene_likelihood == "zinb", hyper.gene_likelihood != "poisson"
    saved = weights[WEIGHTS]
    factors = weights.get("region_factors")
    proteins = "z_decoder_pro"
    heads = {name: pair for name, pair in HEADS.items() if name.startswith("py_") and sizes[2]}
    return Multivi(
        hyper=hyper,
        n_genes=n_genes,
        inputs=(genes, regions, posterior[2][0]),
        encoders=(posterior[0][1], posterior[1][1], posterior[2][1]),
        libraries=(library[0][1], library[1][1]),
        weights=tensor(mean_weights(weights), device, dtype),
        cell_weights=tensor(saved, device, dtype) if saved.ndim == 2 else None,
        decoders=decoders,
        scale_decoder=make_head(weights, "z_decoder_expression.px_scale_decoder.0", device, dtype),
        dropout_decoder=make_head(weights, "z_decoder_expression.px_dropout_decoder", device, dtype) if zinb else None,
        dispersion=tensor(weights["px_r"], device, dtype) if counts else None,
        region_decoder=make_head(weights, "z_decoder_accessibility.output.0", device, dtype),
        region_factor=None if factors is None else torch.sigmoid(tensor(factors, device, dtype)),
        heads={
            name: TwoStage(
                stack(f"{proteins}.{hidden}", normed["decoder"], "relu"), stack(f"{proteins}.{head}", False, "none")
            )
            for name, (hidden, head) in heads.items()
        },
        protein_dispersion=tensor(weights["py_r"] if sizes[2] else np.zeros(0), device, dtype),
    )

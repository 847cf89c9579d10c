"""TOTALVI in eval mode, with every reference weight frozen: genes and surface proteins, each protein signal over a background.

Source: Gayoso et al., Nature Methods 2021 (doi:10.1038/s41592-020-01050-x); of the layout and of what differs between versions:
the state dicts and numbers of scvi-tools 1.0-1.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from scgraft.model import likelihoods
from scgraft.model.layers import Activation, Linear, Rows, Stack, Table, make_linear, make_stack, make_table, tensor
from scgraft.model.options import Hyper, Weights
from scgraft.model.stored import CountStore, StoredCounts, store_counts
from scgraft.model.vae import Cells, Expression, Terms
from scgraft.numerics.tensors import as_tensor
from scgraft.values.blocks import PROTEINS, BlockCounts
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LARGEST_LIBRARY = 15.0  # log counts at which scvi-tools cuts a drawn library size
SPARSITY = 1e-3  # weight of scvi-tools' own penalty on foreground probabilities, since 1.3.1


@dataclass(frozen=True)
class TwoStage:
    """A head of the decoder: hidden layers on the latent, then a linear map that sees the latent again."""

    hidden: Stack
    head: Stack

    def __call__(self, d: Tensor, codes: Tensor, rows: Rows) -> Tensor:
        return self.head(torch.cat([self.hidden(d, codes, rows), d], dim=1), codes, rows)


@dataclass(frozen=True)
class Proteins:
    """Parameters of the protein counts, each (n, P) or (P,).

    `alpha` and `beta` are mean and standard deviation of the log background, `fore` how many times the foreground is as strong,
    `mixing` the logit of a count being background, `efficiency` that of the batch, `dispersion` the inverse dispersion.
    """

    alpha: Tensor
    beta: Tensor
    fore: Tensor
    mixing: Tensor
    efficiency: Tensor
    dispersion: Tensor


@dataclass(frozen=True)
class Totalvi:
    """The frozen model. Its methods take the graft's rows; an empty mapping is the reference itself."""

    hyper: Hyper
    gene_weight: Tensor
    protein_weight: Tensor
    extra_weight: Tensor
    library_extra: Tensor | None
    encoder: Stack
    mean: Linear
    variance: Linear
    library_encoder: Stack | None
    library_mean: Linear | None
    library_variance: Linear | None
    library_prior: tuple[Table, Table] | None
    heads: Mapping[str, TwoStage]
    gene_dispersion: Tensor | Table
    protein_dispersion: Tensor | Table
    efficiency: Table | None
    background: tuple[Table, Table]
    mask: Tensor
    mask_column: int

    @property
    def noise_width(self) -> int:
        """Standard normal numbers that `terms` needs for each cell: of the latent, of the library size, of the background."""
        return self.hyper.n_latent + 1 + len(self.protein_weight)

    @property
    def by_hand(self) -> bool:
        """Whether the likelihood is computed from the stored counts alone."""
        return False

    @property
    def autoencoder(self) -> Totalvi:
        """The model itself."""
        return self

    def product(self, counts: csr_matrix, blocks: Mapping[str, BlockCounts]) -> Tensor:
        """First product of the encoders over genes and proteins, (n, H): zeros stay zeros, so genes are never densified."""
        device, dtype = self.gene_weight.device, self.gene_weight.dtype
        values, length = counts.data.astype(np.float64), np.diff(counts.indptr)
        if self.hyper.normalises_input:
            total = np.asarray(counts.sum(axis=1), np.float64).ravel()
            values = values / np.repeat(1 + total / counts.shape[1], length)
        if self.hyper.log_variational:
            values = np.log1p(values)
        genes = torch.nn.functional.embedding_bag(
            as_tensor(counts.indices).to(device),
            self.gene_weight,
            as_tensor(counts.indptr.astype(counts.indices.dtype, copy=False)).to(device),
            mode="sum",
            per_sample_weights=as_tensor(values).to(device, dtype),
            include_last_offset=True,
        )
        if PROTEINS not in blocks:
            return genes
        own = blocks[PROTEINS].counts.toarray().astype(np.float64)
        if self.hyper.normalises_input:
            own = own / (1 + own.mean(axis=1, keepdims=True))
        if self.hyper.log_variational:
            own = np.log1p(own)
        return genes + as_tensor(own).to(device, dtype) @ self.protein_weight

    def _first(self, extra_weight: Tensor, cells: Cells, columns: slice) -> Tensor:
        product = cells.product[:, columns]
        return product + cells.continuous @ extra_weight.T if extra_weight.shape[1] else product

    def encode(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the latent, each (n, d)."""
        first = self._first(self.extra_weight, cells, slice(0, len(self.extra_weight)))
        h = self.encoder.from_product(first, cells.codes, rows)
        return self.mean(h), torch.exp(self.variance(h)) + self.hyper.variance_floor

    def library(self, cells: Cells, rows: Rows) -> Tensor:
        """Log of the counts of each cell as observed, (n, 1)."""
        return cells.library

    def encode_library(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the log library size, each (n, 1); only where the model has it as a latent."""
        assert self.library_encoder is not None and self.library_extra is not None
        assert self.library_mean is not None and self.library_variance is not None
        first = self._first(self.library_extra, cells, slice(len(self.extra_weight), None))
        h = self.library_encoder.from_product(first, cells.codes, rows)
        return self.library_mean(h), torch.exp(self.library_variance(h)) + self.hyper.variance_floor

    def latent(self, sample: Tensor) -> Tensor:
        """The latent that the decoder sees, from a sample of the posterior."""
        return torch.softmax(sample, dim=-1) if self.hyper.latent_distribution == "ln" else sample

    def decode(self, z: Tensor, library: Tensor, cells: Cells, rows: Rows) -> Expression:
        """Distribution of the gene counts from the latent (n, d) and the log library size (n, 1)."""
        d = torch.cat([z, cells.continuous], dim=1)
        logits = self.heads["px_scale"](d, cells.codes, rows)
        if self.hyper.use_size_factor:
            assert cells.size_factor is not None
            scale, library = softplus(logits), torch.log(cells.size_factor)
        else:
            scale = torch.softmax(logits, dim=-1)
        zi_logits = None
        if self.hyper.gene_likelihood == "zinb":
            zi_logits = self.heads["px_dropout"](d, cells.codes, rows)
        theta = torch.exp(_looked_up(self.gene_dispersion, cells.codes, rows))
        return Expression(scale, torch.exp(library) * scale, theta, zi_logits)

    def decode_proteins(self, z: Tensor, cells: Cells, rows: Rows) -> Proteins:
        """Distribution of the protein counts from the latent (n, d)."""
        d, codes = torch.cat([z, cells.continuous], dim=1), cells.codes
        raw = self.heads["py_beta"](d, codes, rows)
        beta = (
            torch.exp(raw) if self.hyper.background_activation == "exp" else softplus(raw) + self.hyper.background_floor
        )
        efficiency = None if self.efficiency is None else torch.exp(self.efficiency(codes, rows))
        return Proteins(
            alpha=self.heads["py_alpha"](d, codes, rows),
            beta=beta,
            fore=torch.relu(self.heads["py_fore"](d, codes, rows)) + 1 + 1e-8,
            mixing=self.heads["py_mixing"](d, codes, rows),
            efficiency=torch.ones_like(raw) if efficiency is None else efficiency,
            dispersion=torch.exp(_looked_up(self.protein_dispersion, codes, rows)),
        )

    def store(self, counts: csr_matrix, cells: Cells) -> CountStore:
        """Counts of the cells on the model's device."""
        return store_counts(counts, None, self.gene_weight)

    def log_likelihood(self, counts: Tensor, expression: Expression, *, value: bool = True) -> Tensor:
        """Log-likelihood of the gene counts, summed over genes, (n,); without `value` less what no gradient depends on."""
        assert expression.theta is not None
        if expression.zi_logits is None:
            return likelihoods.log_nb(counts, expression.rate, expression.theta, value=value).sum(-1)
        rate, theta = expression.rate, expression.theta
        return likelihoods.log_zinb(counts, rate, theta, expression.zi_logits, value=value).sum(-1)

    def measured(self, cells: Cells) -> Tensor:
        """Which proteins count in the likelihood, (n, P) of ones and zeros: measured here, and in the batch of the reference."""
        assert cells.measured is not None
        new = self.mask.new_ones(1, self.mask.shape[1])
        code = cells.codes[:, self.mask_column].clamp(max=len(self.mask))
        return cells.measured * torch.cat([self.mask, new])[code]

    def protein_terms(self, p: Proteins, cells: Cells, rows: Rows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the log-likelihood of the protein counts, and the divergences of background and efficiency, each (n,)."""
        assert cells.proteins is not None
        back = torch.exp(p.alpha + p.beta * noise)
        y, mask = cells.proteins, self.measured(cells)
        background = likelihoods.log_nb(y, p.efficiency * back, p.dispersion)
        foreground = likelihoods.log_nb(y, p.efficiency * back * p.fore, p.dispersion)
        log_p = torch.logaddexp(background + logsigmoid(p.mixing), foreground + logsigmoid(-p.mixing))
        prior_mean, prior_log_sd = (table(cells.codes, rows) for table in self.background)
        kl = likelihoods.kl_normal(p.alpha, p.beta**2, prior_mean, torch.exp(2 * prior_log_sd))
        divergence = (mask * kl).sum(-1)
        if self.efficiency is not None:
            log_efficiency = torch.log(p.efficiency)
            divergence = divergence + (log_efficiency**2 / 2 + log_efficiency + 0.5 * np.log(2 * np.pi)).sum(-1)
            divergence = divergence + SPARSITY * softplus(-p.mixing).sum(-1)
        return -(mask * log_p).sum(-1), divergence

    def terms(self, cells: Cells, rows: Rows, noise: Tensor, *, value: bool = True) -> Terms:
        """Terms of the negative ELBO, with one draw from each posterior; `counts` are those of genes and proteins together."""
        d, counts = self.hyper.n_latent, cells.counts
        assert counts is not None
        dense = counts.dense(len(self.gene_weight)) if isinstance(counts, StoredCounts) else counts
        mean, variance = cells.posterior or self.encode(cells, rows)
        sample = mean + variance.sqrt() * noise[:, :d]
        library, kl_library = self.library(cells, rows), torch.zeros_like(mean[:, 0])
        if self.hyper.models_library:
            assert self.library_prior is not None
            own, spread = self.encode_library(cells, rows)
            library = (own + spread.sqrt() * noise[:, d : d + 1]).clamp(max=LARGEST_LIBRARY)
            prior = [table(cells.codes, rows) for table in self.library_prior]
            kl_library = likelihoods.kl_normal(own, spread, *prior).sum(-1)
        z = self.latent(sample)
        genes = -self.log_likelihood(dense, self.decode(z, library, cells, rows), value=value)
        proteins, background = self.protein_terms(self.decode_proteins(z, cells, rows), cells, rows, noise[:, d + 1 :])
        kl = likelihoods.kl_normal(mean, variance, 0.0, 1.0).sum(-1) + background
        return Terms(genes + proteins, torch.zeros_like(kl), kl, kl_library, sample, mean, variance)


def _looked_up(parameter: Tensor | Table, codes: Tensor, rows: Rows) -> Tensor:
    return parameter if isinstance(parameter, Tensor) else parameter(codes, rows)


# Name here, hidden layers and head of each output in the state dict.
HEADS = {
    "px_scale": ("px_decoder", "px_scale_decoder"),
    "py_alpha": ("py_back_decoder", "py_back_mean_log_alpha"),
    "py_beta": ("py_back_decoder", "py_back_mean_log_beta"),
    "py_fore": ("py_fore_decoder", "py_fore_scale_decoder"),
    "py_mixing": ("sigmoid_decoder", "py_background_decoder"),
    "px_dropout": ("sigmoid_decoder", "px_dropout_decoder_gene"),
}


def make_totalvi(
    hyper: Hyper,
    schema: Schema,
    weights: Weights,
    own: Sequence[Slot],
    mask: np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Totalvi:
    """Build the frozen model from a reference's state dict, its slots `own`, and what its batches (or panels) measured, (B, P)."""
    covariates, n_genes = list(schema.levels), len(schema.genes)
    n_inputs = n_genes + len(schema.block(PROTEINS).features)

    def stack(prefix: str, scope: str, *, plain: bool = False) -> Stack:
        norm = hyper.use_layer_norm in (scope, "both") and not plain
        kind: Activation = "none" if plain else "relu"
        return make_stack(
            weights, prefix, own, covariates, layer_norm=norm, activation=kind, device=device, dtype=dtype
        )

    def table(key: str) -> Table:
        return make_table(weights, next(s for s in own if s.key == key), covariates, device, dtype)

    def dispersion(key: str) -> Tensor | Table:
        return table(key) if weights[key].ndim == 2 else tensor(weights[key], device, dtype)

    encoder = stack("encoder.encoder", "encoder")
    first = [encoder.layers[0].weight]
    library = None
    if hyper.models_library:
        library = stack("encoder.l_gene_encoder", "encoder")
        first.append(library.layers[0].weight)

    def linear(name: str) -> Linear:
        return make_linear(weights, f"encoder.{name}", device, dtype)

    return Totalvi(
        hyper=hyper,
        gene_weight=torch.cat([w[:, :n_genes] for w in first]).T.contiguous(),
        protein_weight=torch.cat([w[:, n_genes:n_inputs] for w in first]).T.contiguous(),
        extra_weight=first[0][:, n_inputs:],
        library_extra=None if library is None else first[1][:, n_inputs:],
        encoder=encoder,
        mean=linear("z_mean_encoder"),
        variance=linear("z_var_encoder"),
        library_encoder=library,
        library_mean=None if library is None else linear("l_gene_mean_encoder"),
        library_variance=None if library is None else linear("l_gene_var_encoder"),
        library_prior=None if library is None else (table("library_log_means"), table("library_log_vars")),
        heads={
            name: TwoStage(stack(f"decoder.{hidden}", "decoder"), stack(f"decoder.{head}", "decoder", plain=True))
            for name, (hidden, head) in HEADS.items()
        },
        gene_dispersion=dispersion("px_r"),
        protein_dispersion=dispersion("py_r"),
        efficiency=table("log_per_batch_efficiency") if "log_per_batch_efficiency" in weights else None,
        background=(table("background_pro_alpha"), table("background_pro_log_beta")),
        mask=tensor(mask, device, dtype),
        mask_column=covariates.index(schema.block(PROTEINS).panel),
    )

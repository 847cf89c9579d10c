"""The variational autoencoder that SCVI and SCANVI share, in eval mode, with every reference weight frozen.

The first product of the encoder over the genes is frozen too, so it is computed once per cell from the sparse counts
(`Vae.product`) and everything later starts from it. Source of the model: Lopez et al., Nature Methods 2018
(doi:10.1038/s41592-018-0229-2); of the file layout: the state dicts of scvi-tools 0.8-1.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from scgraft.model import likelihoods
from scgraft.model.layers import (
    Activation,
    Conditions,
    Layer,
    Linear,
    Rows,
    Stack,
    Table,
    make_head,
    make_linear,
    make_stack,
    make_table,
    tensor,
)
from scgraft.model.options import EMBEDDING, Hyper, Weights
from scgraft.model.output import OutputLayer, counts_log_likelihood
from scgraft.model.stored import CountStore, StoredCounts, store_counts
from scgraft.numerics.tensors import as_tensor
from scgraft.values.blocks import BlockCounts
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


PER_CELL = ("product", "codes", "continuous", "library", "size_factor", "labels", "proteins", "measured", "own")


@dataclass(frozen=True)
class Cells:
    """Cells as the model takes them, all on one device.

    `product` is the cached first product of the encoders (n, P), `library` the log of the total counts (n, 1),
    `labels` codes or -1 (n,). `counts`, where a likelihood is needed, are the stored raw counts, or dense ones (n, G).
    `proteins` and what of them was `measured` are (n, P). `posterior`, where nothing that is trained moves it, is mean and
    variance of the latent, each (n, d), computed once. `own` are positions among the reference's cells, (n,), where they are these.
    """

    product: Tensor
    codes: Tensor
    continuous: Tensor
    library: Tensor
    size_factor: Tensor | None = None
    labels: Tensor | None = None
    counts: Tensor | StoredCounts | None = None
    posterior: tuple[Tensor, Tensor] | None = None
    proteins: Tensor | None = None
    measured: Tensor | None = None
    own: Tensor | None = None

    def take(self, index: Tensor, counts: Tensor | StoredCounts | None = None) -> Cells:
        """A subset of the cells, with their counts."""
        taken: dict[str, Any] = {n: None if a is None else a[index] for n in PER_CELL for a in [getattr(self, n)]}
        posterior = None if self.posterior is None else (self.posterior[0][index], self.posterior[1][index])
        return replace(self, counts=counts, posterior=posterior, **taken)


@dataclass(frozen=True)
class Expression:
    """Parameters of the count distribution: `scale` (n, G) sums to one without size factors, `rate` is the mean.

    For PEAKVI `scale` is the probability that a region is open, and `rate` that it is seen, at the cell's depth. The last `n_regions`
    columns are such regions beside genes; `theta` and `zi_logits` are of the genes.
    """

    scale: Tensor
    rate: Tensor
    theta: Tensor | None
    zi_logits: Tensor | None
    n_regions: int = 0


@dataclass(frozen=True)
class Terms:
    """Terms of the negative ELBO of each cell, each (n,) in nats, and the posterior that they come from.

    ::

        negative ELBO = counts + latent + kl_weight * kl + kl_library

    Parameters
    ----------
    counts
        Minus the log-likelihood of the raw counts.
    latent
        Part of the prior on the latent that is not scaled by the KL weight; 0 for SCVI.
    kl
        KL divergence of the latent from its prior; scaled by the KL weight.
    kl_library
        KL divergence of the library size from its prior; not scaled by the KL weight, as in scvi-tools. It is 0 for models
        that take the observed library size.
    sample
        Draw from the posterior, (n, d).
    mean, variance
        Of the posterior, (n, d).
    """

    counts: Tensor
    latent: Tensor
    kl: Tensor
    kl_library: Tensor
    sample: Tensor
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Vae:
    """The frozen autoencoder. Its methods take the graft's rows; an empty mapping is the reference itself."""

    hyper: Hyper
    gene_weight: Tensor
    extra_weight: Tensor
    encoder: Stack
    mean: Linear
    variance: Linear
    library_extra: Tensor | None
    library_encoder: Stack | None
    library_mean: Linear | None
    library_variance: Linear | None
    library_prior: tuple[Table, Table] | None
    embedding: Table | Conditions | None
    decoder: Stack
    scale_decoder: Layer
    dropout_decoder: Layer | None
    dispersion_decoder: Linear | None
    dispersion: Tensor | Table | None
    region_factor: Tensor | None = None

    def product(self, counts: csr_matrix, blocks: Mapping[str, BlockCounts] | None = None) -> Tensor:
        """First product of the encoders over the genes, (n, P): log1p of the stored counts only, never densified."""
        device, dtype = self.gene_weight.device, self.gene_weight.dtype
        values = as_tensor(np.log1p(counts.data) if self.hyper.log_variational else counts.data)
        return torch.nn.functional.embedding_bag(
            as_tensor(counts.indices).to(device),
            self.gene_weight,
            as_tensor(counts.indptr.astype(counts.indices.dtype, copy=False)).to(device),
            mode="sum",
            per_sample_weights=values.to(device, dtype),
            include_last_offset=True,
        )

    def _first(self, extra_weight: Tensor, cells: Cells, rows: Rows, columns: slice) -> Tensor:
        product = cells.product[:, columns]
        extra = [cells.continuous] if self.hyper.encode_covariates else []
        if self.embedding is not None and self.hyper.encode_covariates:
            extra.append(self.embedding(cells.codes, rows))
        if extra_weight.shape[1]:
            product = product + torch.cat(extra, dim=1) @ extra_weight.T
        return product

    def encode(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the latent, each (n, d)."""
        width = self.extra_weight.shape[0]
        first = self._first(self.extra_weight, cells, rows, slice(0, width))
        h = self.encoder.from_product(first, cells.codes, rows)
        return self.mean(h), torch.exp(self.variance(h)) + self.hyper.variance_floor

    def library(self, cells: Cells, rows: Rows) -> Tensor:
        """Log of what multiplies the decoder's output, (n, 1): the counts of each cell as observed, or PEAKVI's depth."""
        if self.hyper.gene_likelihood != "bernoulli":
            return cells.library
        if self.library_encoder is None:
            return torch.zeros_like(cells.library)
        assert self.library_extra is not None and self.library_mean is not None
        first = self._first(self.library_extra, cells, rows, slice(self.extra_weight.shape[0], None))
        return logsigmoid(self.library_mean(self.library_encoder.from_product(first, cells.codes, rows)))

    def encode_library(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the log library size, each (n, 1); only where the model has it as a latent."""
        assert self.library_encoder is not None and self.library_extra is not None
        assert self.library_mean is not None and self.library_variance is not None
        first = self._first(self.library_extra, cells, rows, slice(self.extra_weight.shape[0], None))
        h = self.library_encoder.from_product(first, cells.codes, rows)
        return self.library_mean(h), torch.exp(self.library_variance(h)) + 1e-4

    def latent(self, sample: Tensor) -> Tensor:
        """The latent that the decoder sees, from a sample of the posterior."""
        return torch.softmax(sample, dim=-1) if self.hyper.latent_distribution == "ln" else sample

    def decode(self, z: Tensor, library: Tensor, cells: Cells, rows: Rows) -> Expression:
        """Count distribution from the latent (n, d) and the log library size (n, 1)."""
        hyper, h = self.hyper, self._decoder_output(z, cells, rows)
        logits = self.scale_decoder(h, cells.codes, rows)
        if hyper.gene_likelihood == "bernoulli":
            scale = torch.sigmoid(logits)
            rate = torch.exp(library).clamp(max=1.0) * scale
            return Expression(scale, rate if self.region_factor is None else rate * self.region_factor, None, None)
        if hyper.takes_values:
            scale = torch.relu(logits)
            return Expression(scale, scale, self._theta(h, cells, rows), None)
        if hyper.use_size_factor:
            assert cells.size_factor is not None
            scale, library = softplus(logits), torch.log(cells.size_factor)
        else:
            scale = torch.softmax(logits, dim=-1)
        rate = torch.exp(library) * scale
        zi_logits = None if self.dropout_decoder is None else self.dropout_decoder(h, cells.codes, rows)
        return Expression(scale, rate, self._theta(h, cells, rows), zi_logits)

    def _decoder_output(self, z: Tensor, cells: Cells, rows: Rows) -> Tensor:
        extra = [z, cells.continuous]
        if self.embedding is not None:
            extra.append(self.embedding(cells.codes, rows))
        return self.decoder(torch.cat(extra, dim=1), cells.codes, rows)

    @property
    def by_hand(self) -> bool:
        """Whether the likelihood is computed from the stored counts alone, with a gradient by hand."""
        if self.hyper.use_size_factor or self.hyper.gene_likelihood in ("normal", "bernoulli"):
            return False
        if not self.scale_decoder.plain:
            return False
        return self.hyper.gene_likelihood == "poisson" or self.hyper.dispersion in ("gene", "gene-label")

    def store(self, counts: csr_matrix, cells: Cells) -> CountStore:
        """Counts of the cells on the model's device, with what of their likelihood is constant."""
        like, per_count = self.gene_weight, None
        if self.by_hand:
            value = as_tensor(counts.data).to(like.device, torch.float64)
            gene = torch.as_tensor(counts.indices.astype(np.int64)).to(like.device)
            theta = self._theta(like, cells, {}) if self.hyper.gene_likelihood != "poisson" else None
            if theta is not None and theta.ndim == 2:
                row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
                theta = theta[torch.as_tensor(row).to(like.device), gene].double()
            elif theta is not None:
                theta = theta.double()[gene]
            per_count = likelihoods.log_counts_constant(value, theta)
        return store_counts(counts, per_count, like)

    def _counts_term(self, z: Tensor, library: Tensor, cells: Cells, rows: Rows, *, value: bool) -> Tensor:
        """Minus the log-likelihood of the counts, (n,)."""
        counts = cells.counts
        assert counts is not None
        if isinstance(counts, Tensor) or not self.by_hand or self.scale_decoder.bias is None:
            dense = counts if isinstance(counts, Tensor) else counts.dense(len(self.scale_decoder.weight))
            return -self.log_likelihood(dense, self.decode(z, library, cells, rows), value=value)
        h = self._decoder_output(z, cells, rows)
        dropout = self.dropout_decoder
        layer = OutputLayer(
            self.scale_decoder.weight,
            self.scale_decoder.bias,
            None if self.hyper.gene_likelihood == "poisson" else self._theta(h, cells, rows),
            None if dropout is None else dropout.weight,
            None if dropout is None else dropout.bias,
        )
        return -counts_log_likelihood(h, library, counts, layer, value=value)

    def _theta(self, h: Tensor, cells: Cells, rows: Rows) -> Tensor | None:
        if self.dispersion_decoder is not None:
            return torch.exp(self.dispersion_decoder(h))
        if self.dispersion is None or isinstance(self.dispersion, Tensor):
            return None if self.dispersion is None else torch.exp(self.dispersion)
        if self.hyper.dispersion == "gene-batch":
            return torch.exp(self.dispersion(cells.codes, rows))
        # Cells without a known label take the mean log-dispersion over the labels.
        mean = self.dispersion.frozen.mean(dim=0)
        if cells.labels is None:
            return torch.exp(mean)
        known = self.dispersion(cells.labels.clamp(min=0)[:, None], {})
        return torch.exp(torch.where((cells.labels >= 0)[:, None], known, mean))

    def log_likelihood(self, counts: Tensor, expression: Expression, *, value: bool = True) -> Tensor:
        """Log-likelihood of the counts, summed over genes, (n,); without `value` less what no gradient depends on."""
        kind = self.hyper.gene_likelihood
        if kind == "bernoulli":
            return likelihoods.log_bernoulli(counts, expression.rate).sum(-1)
        if kind == "poisson":
            return likelihoods.log_poisson(counts, expression.rate).sum(-1)
        assert expression.theta is not None
        if kind == "normal":
            return likelihoods.log_normal(counts, expression.rate, expression.theta).sum(-1)
        if kind == "nb":
            return likelihoods.log_nb(counts, expression.rate, expression.theta, value=value).sum(-1)
        assert expression.zi_logits is not None
        rate, theta = expression.rate, expression.theta
        return likelihoods.log_zinb(counts, rate, theta, expression.zi_logits, value=value).sum(-1)

    def kl_library(self, mean: Tensor, variance: Tensor, cells: Cells, rows: Rows) -> Tensor:
        """KL divergence of the library size from the prior of its batch, (n,)."""
        assert self.library_prior is not None
        prior_mean, prior_variance = (table(cells.codes, rows) for table in self.library_prior)
        return likelihoods.kl_normal(mean, variance, prior_mean, prior_variance).sum(-1)

    @property
    def noise_width(self) -> int:
        """Standard normal numbers that `terms` needs for each cell."""
        return self.hyper.n_latent + int(self.hyper.models_library)

    @property
    def autoencoder(self) -> Vae:
        """The model without what other families add to it."""
        return self

    def terms(self, cells: Cells, rows: Rows, noise: Tensor, *, value: bool = True) -> Terms:
        """Terms of the negative ELBO with one draw from the posterior, given by standard normal `noise` (n, width).

        Without `value` only their gradient is to be relied on, see :func:`scgraft.model.output.counts_log_likelihood`.
        """
        assert cells.counts is not None
        mean, variance = cells.posterior or self.encode(cells, rows)
        sample = mean + variance.sqrt() * noise[:, : self.hyper.n_latent]
        library, kl_library = self.library(cells, rows), torch.zeros_like(mean[:, 0])
        if self.hyper.models_library:
            library_mean, library_variance = self.encode_library(cells, rows)
            library = library_mean + library_variance.sqrt() * noise[:, -1:]
            kl_library = self.kl_library(library_mean, library_variance, cells, rows)
        kl = likelihoods.kl_normal(mean, variance, 0.0, 1.0).sum(-1)
        counts = self._counts_term(self.latent(sample), library, cells, rows, value=value)
        return Terms(counts, torch.zeros_like(kl), kl, kl_library, sample, mean, variance)


def make_vae(
    hyper: Hyper,
    schema: Schema,
    weights: Weights,
    own: Sequence[Slot],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Vae:
    """Build the frozen model from a reference's state dict and its slots `own`."""
    covariates, n_genes = list(schema.levels), len(schema.genes)

    def stack(prefix: str, scope: str, activation: Activation = hyper.activation) -> Stack:
        norm = hyper.use_layer_norm in (scope, "both")
        return make_stack(
            weights, prefix, own, covariates, layer_norm=norm, activation=activation, device=device, dtype=dtype
        )

    def head(prefix: str) -> Layer:
        """Output layer: a linear map, or for a linear decoder one that sees the latent and the batch itself."""
        if hyper.linear_decoder:
            return stack(prefix, "head", "none").layers[0]
        return make_head(weights, prefix, device, dtype)

    def table(key: str, within: Sequence[Slot] = own, names: Sequence[str] = covariates) -> Table:
        return make_table(weights, next(s for s in within if s.key == key), names, device, dtype)

    encoder = stack("z_encoder.encoder", "encoder")
    first = [encoder.layers[0].weight]
    library_encoder = library_mean = library_variance = library_prior = library_extra = None
    if hyper.models_library:
        library_encoder = stack("l_encoder.encoder", "encoder")
        library_mean = make_linear(weights, "l_encoder.mean_encoder", device, dtype)
        library_variance = make_linear(weights, "l_encoder.var_encoder", device, dtype)
        library_prior = (table("library_log_means"), table("library_log_vars"))
        first.append(library_encoder.layers[0].weight)
        library_extra = first[1][:, n_genes:]
    dispersion: Tensor | Table | None = None
    if hyper.gene_likelihood != "poisson" and hyper.dispersion != "gene-cell":
        if hyper.dispersion == "gene-label":
            labels = weights["px_r"].shape[1]
            dispersion = table("px_r", [Slot("px_r", 1, 0, labels, labels, "labels", "dispersion", False)], ["labels"])
        elif hyper.dispersion == "gene-batch":
            dispersion = table("px_r")
        else:
            dispersion = tensor(weights["px_r"], device, dtype)
    gene_cell = hyper.dispersion == "gene-cell" and hyper.gene_likelihood != "poisson"
    zinb = hyper.gene_likelihood == "zinb"
    return Vae(
        hyper=hyper,
        gene_weight=torch.cat([w[:, :n_genes] for w in first]).T.contiguous(),
        extra_weight=first[0][:, n_genes:],
        encoder=encoder,
        mean=make_linear(weights, "z_encoder.mean_encoder", device, dtype),
        variance=make_linear(weights, "z_encoder.var_encoder", device, dtype),
        library_extra=library_extra,
        library_encoder=library_encoder,
        library_mean=library_mean,
        library_variance=library_variance,
        library_prior=library_prior,
        embedding=table(EMBEDDING) if hyper.batch_representation == "embedding" else None,
        decoder=Stack(()) if hyper.linear_decoder else stack("decoder.px_decoder", "decoder"),
        scale_decoder=head("decoder.factor_regressor" if hyper.linear_decoder else "decoder.px_scale_decoder.0"),
        dropout_decoder=head("decoder.px_dropout_decoder") if zinb else None,
        dispersion_decoder=make_linear(weights, "decoder.px_r_decoder", device, dtype) if gene_cell else None,
        dispersion=dispersion,
    )

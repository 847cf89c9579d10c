"""What the package asks of a frozen model, whatever its family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scipy.sparse import csr_matrix
    from torch import Tensor

    from scgraft.model.layers import Rows
    from scgraft.model.stored import CountStore
    from scgraft.model.vae import Cells, Expression, Terms
    from scgraft.values.blocks import BlockCounts


class Model(Protocol):
    """A reference's frozen model in torch. `rows` are a graft's new columns by slot name: all that can be trained."""

    @property
    def hyper(self) -> Any:
        """Hyper-parameters of the family."""

    @property
    def noise_width(self) -> int:
        """Standard normal numbers that `terms` needs for each cell."""

    @property
    def by_hand(self) -> bool:
        """Whether the likelihood and its gradient are computed from the stored counts alone."""

    @property
    def autoencoder(self) -> Model:
        """The model without what is around its autoencoder."""

    def product(self, counts: csr_matrix, blocks: Mapping[str, BlockCounts]) -> Tensor:
        """First product of the encoders over the genes and other inputs, (n, H): what a fit computes once a cell."""

    def store(self, counts: csr_matrix, cells: Cells) -> CountStore:
        """Counts of the cells on the model's device."""

    def encode(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the latent, (n, d)."""

    def library(self, cells: Cells, rows: Rows) -> Tensor:
        """Log of what multiplies the decoder's output where it is not drawn, (n, 1): counts as observed, or a depth."""

    def encode_library(self, cells: Cells, rows: Rows) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the log library size, (n, 1)."""

    def latent(self, sample: Tensor) -> Tensor:
        """The latent that the decoder sees."""

    def decode(self, z: Tensor, library: Tensor, cells: Cells, rows: Rows) -> Expression:
        """Count distribution from the latent."""

    def log_likelihood(self, counts: Tensor, expression: Expression, *, value: bool = True) -> Tensor:
        """Log-likelihood of the counts, summed over genes, (n,); without `value` less what no gradient depends on."""

    def terms(self, cells: Cells, rows: Rows, noise: Tensor, *, value: bool = True) -> Terms:
        """Terms of the negative ELBO, with one draw from each posterior."""


class Classifier(Protocol):
    """A model that classifies cells itself."""

    def classify(self, z: Tensor) -> Tensor:
        """Logits of the classes from the latent, (n, C)."""

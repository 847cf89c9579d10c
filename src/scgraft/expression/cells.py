"""Cells as the decoder takes them: a posterior and what the model is told of each cell, without a count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import NoLabels
from scgraft.graft.embed import embed, observed_library
from scgraft.graft.levels import level_codes
from scgraft.numerics.sealed import seal_fields
from scgraft.reference.cells import continuous_covariates, reference_codes, size_factors
from scgraft.values.graft import Graft
from scgraft.values.names import level_name
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference, Schema
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LatentCells:
    """Cells of a reference or a query in the latent space; no count, so they can be kept where the counts cannot.

    Parameters
    ----------
    latent
        Posterior of the cells, with their names.
    codes
        Codes of the batch and of each categorical covariate, (n, 1 + c) int64, among the reference's levels followed
        by the graft's.
    continuous
        Continuous covariates, (n, k) float32.
    library
        Observed library size: counts over the model's genes, (n,) float32; PEAKVI's depth, in [0, 1]; None where it is not
        known.
    size_factor
        Size factors, (n,) float32, when the reference was trained with them.
    label_codes
        Codes into the reference's labels, -1 where unknown, (n,) int64; None when nothing is known.
    """

    latent: Latent
    codes: np.ndarray
    continuous: np.ndarray
    library: np.ndarray | None = None
    size_factor: np.ndarray | None = None
    label_codes: np.ndarray | None = None

    def __post_init__(self) -> None:
        seal_fields(self)

    def __len__(self) -> int:
        return len(self.latent.cells)

    def take(self, index: np.ndarray | slice) -> LatentCells:
        """A subset of the cells: positions, a mask or a slice."""

        def part(array: np.ndarray | None) -> Any:
            return None if array is None else array[index]

        latent = Latent(self.latent.mean[index], self.latent.variance[index], self.latent.cells[index])
        return replace(
            self,
            latent=latent,
            codes=self.codes[index],
            continuous=self.continuous[index],
            library=part(self.library),
            size_factor=part(self.size_factor),
            label_codes=part(self.label_codes),
        )

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def reference_cells(reference: Reference) -> LatentCells:
    """The reference's own cells, from its stored posterior and annotation alone.

    Raises
    ------
    NoLabels
        The reference holds no cells.
    CorruptFile
        Its annotation lacks a column that the model was trained with, or a value is none that the model knows.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> cells = scgraft.reference_cells(reference)
    >>> len(cells), scgraft.normalized_expression(reference, cells).shape
    (60, (60, 30))
    """
    if reference.latent is None or reference.obs is None:
        raise NoLabels(
            f"{reference.base.repo} holds no cells ({reference.latent_source}), so nothing can be decoded for them. Take a revision "
            "with adata.h5ad."
        )
    return LatentCells(
        latent=reference.latent,
        codes=reference_codes(reference).astype(np.int64),
        continuous=continuous_covariates(reference),
        library=reference.library,
        size_factor=size_factors(reference),
        label_codes=_label_codes(reference.obs, reference.schema),
    )


def query_cells(reference: Reference, query: Query, graft: Graft | None = None, *, device: str = "auto") -> LatentCells:
    """The query's cells after their mapping; the counts are used here and not kept.

    Parameters
    ----------
    reference
        The reference.
    query
        Aligned cells (raw UMI counts), from :func:`scgraft.align`.
    graft
        New columns for the query's new batches.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    UnknownBatch
        A batch or level that neither the reference nor the graft knows.
    BaseMismatch
        The graft was made for another reference.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> cells = scgraft.query_cells(reference, query, graft)
    >>> len(cells), scgraft.normalized_expression(reference, cells, graft).shape
    (40, (40, 30))
    """
    return LatentCells(
        latent=embed(reference, query, graft, device=device),
        codes=level_codes(query, reference.schema, {} if graft is None else graft.levels),
        continuous=query.continuous,
        library=observed_library(reference, query, graft, device=device),
        size_factor=query.size_factor,
        label_codes=None if query.label_codes is None else query.label_codes.astype(np.int64),
    )


def _label_codes(obs: pd.DataFrame, schema: Schema) -> np.ndarray | None:
    if schema.labels_key is None or schema.labels_key not in obs:
        return None
    position = {name: code for code, name in enumerate(schema.labels)}
    return np.array([position.get(level_name(value), -1) for value in obs[schema.labels_key]], np.int64)

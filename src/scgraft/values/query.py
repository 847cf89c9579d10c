"""Cells in the reference's genes, and how they were brought there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import BadOption
from scgraft.numerics.sealed import seal_fields
from scgraft.values.blocks import BlockCounts
from scgraft.values.options import within
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


SPATIAL = "The file is spatial."  # how the message of such a file begins


@dataclass(frozen=True)
class AlignOptions:
    """How a query is to be brought into the reference's genes and batches: asked once, carried by the mapping.

    Parameters
    ----------
    batch_key
        obs column of the query's batches; None makes the whole query one new batch.
    layer
        Where the counts are (``"X"``, ``"raw"`` or a layer); None looks for them.
    drop_empty
        Leave out cells without any count in the reference's genes.
    min_found
        Least share of the reference's genes, by weight, that the query must have, in [0, 1]; None leaves it to the mapping, which
        measures what the missing ones cost.
    gene_map
        Query gene to reference gene, taken before anything else.

    Raises
    ------
    BadOption
        `min_found` is not between 0 and 1, or a name is not text.
    """

    batch_key: str | None = None
    layer: str | None = None
    drop_empty: bool = False
    min_found: float | None = 0.5  # of the reference's weight: below, the loss is measured first (scgraft.mapping.cost)
    gene_map: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in ("batch_key", "layer"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                raise BadOption(f"{name} is the name of one column or layer, as text, not {value!r}.")
        if self.min_found is not None:
            within("min_found", self.min_found, 0, 1)

    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Alignment:
    """How a query was brought into the reference's genes and batches: found, repaired, missing.

    Parameters
    ----------
    counts_from
        Where the raw counts were: ``"X"``, ``"layers['counts']"``, ``"raw.X"``, or "recovered from ...".
    n_cells, n_genes, n_found
        Cells kept, genes of the reference, and how many of them the query has.
    found_weight
        Share of the found genes weighted by how much each matters to the encoder, in [0, 1].
    matched_by
        Number of genes by the way they were matched, for example ``{"var_names": 1980, "version stripped": 12}``.
    missing
        Genes of the reference that the query lacks (filled with zeros).
    summed
        Reference genes for which several query genes were added up, with the query's names.
    n_unused
        Genes of the query that the reference does not use.
    lacking
        Kinds of features that the reference takes and the query has none of: ``"regions"`` of a query of RNA alone.
    set_aside
        Features of the query that are not gene expression (antibodies, peaks, guides); they match no gene.
    options
        What was asked for.
    new_levels
        New levels by covariate (``"batch"``, ``"covariate:<key>"``), in code order.
    known_batches
        Batches of the query that the reference has: they keep the reference's columns.
    cells_per_batch
        Number of cells in each batch of the query.
    dropped
        Names of cells left out because they had no count.
    messages
        Sentences for the user, in order.
    """

    counts_from: str
    n_cells: int
    n_genes: int
    n_found: int
    found_weight: float
    matched_by: Mapping[str, int]
    missing: tuple[str, ...]
    summed: Mapping[str, tuple[str, ...]]
    n_unused: int
    options: AlignOptions
    new_levels: Mapping[str, tuple[str, ...]]
    known_batches: tuple[str, ...]
    cells_per_batch: Mapping[str, int]
    dropped: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def batch_key(self) -> str | None:
        """Obs column of the query's batches, or None when the whole query is one new batch."""
        return self.options.batch_key

    @property
    def spatial(self) -> bool:
        """Whether the query's file says that it is spatial, as one of the messages tells."""
        return any(message.startswith(SPATIAL) for message in self.messages)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Query:
    """Cells in the reference's genes.

    Parameters
    ----------
    counts
        Raw UMI (or read) counts, CSR float32, shape (n, G), columns in the reference's gene order.
    codes
        Codes of the batch and of each categorical covariate, shape (n, 1 + c), int32, into `levels`.
    levels
        Level names by covariate, in code order: the reference's levels first, then the query's new ones.
    continuous
        Continuous covariates, shape (n, k), float32.
    cells
        Cell names, shape (n,), str.
    size_factor
        Size factors, shape (n,), float32, when the reference was trained with them.
    label_codes
        Codes into ``schema.labels`` where the query's labels are known, else -1; shape (n,), int32, or None.
    alignment
        How the query was brought into this form.
    blocks
        Inputs beside the genes by name, with what of them was measured.
    own
        Positions among the reference's own cells, (n,), where the cells are these: a model may have numbers of each of them.
    """

    counts: csr_matrix
    codes: np.ndarray
    levels: Mapping[str, tuple[str, ...]]
    continuous: np.ndarray
    cells: np.ndarray
    size_factor: np.ndarray | None
    label_codes: np.ndarray | None
    alignment: Alignment
    blocks: Mapping[str, BlockCounts] = field(default_factory=dict)
    own: np.ndarray | None = None

    def __post_init__(self) -> None:
        seal_fields(self)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html

"""A reference's frozen model in torch, and a query's cells as it takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgraft.model.families import family_of
from scgraft.model.vae import Cells
from scgraft.numerics.products import fast_products
from scgraft.values.graft import Graft
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scgraft.model.protocol import Model


def pick_device(name: str) -> torch.device:
    """``"auto"`` is CUDA when there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def build(reference: Reference, device: torch.device, dtype: torch.dtype = torch.float32) -> Model:
    """The reference's frozen model in torch."""
    return family_of(reference.base.family).build(reference, device, dtype)


def make_cells(
    model: Model,
    query: Query,
    codes: np.ndarray,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Cells:
    """The query's cells as the model takes them, without their counts; the first product is computed here, once."""
    total = np.asarray(query.counts.sum(axis=1), dtype=np.float64).ravel()
    with np.errstate(divide="ignore"):
        library = np.log(total)[:, None]

    def move(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.require(array, requirements="W")).to(device, dtype)  # torch takes no read-only array

    return Cells(
        product=model.product(query.counts),
        codes=torch.as_tensor(codes).to(device),
        continuous=move(query.continuous),
        library=move(library),
        size_factor=None if query.size_factor is None else move(query.size_factor[:, None]),
        labels=None if query.label_codes is None else torch.as_tensor(query.label_codes.astype(np.int64)).to(device),
    )


def take_cells(query: Query, index: np.ndarray | slice) -> Query:
    """Some of a query's cells."""
    return replace(
        query,
        counts=_rows(query.counts, index),
        codes=query.codes[index],
        continuous=query.continuous[index],
        cells=query.cells[index],
        size_factor=None if query.size_factor is None else query.size_factor[index],
        label_codes=None if query.label_codes is None else query.label_codes[index],
    )


def _rows(counts: csr_matrix, index: np.ndarray | slice) -> csr_matrix:
    """Rows of a matrix; those from one to another are a view, as scipy would copy them."""
    from scipy.sparse import csr_matrix

    if not isinstance(index, slice) or index.step not in (None, 1):
        return counts[index]
    start, stop, _ = index.indices(counts.shape[0])
    begin, end = counts.indptr[start], counts.indptr[stop]
    # Given parts of an array, the constructor would copy them.
    rows = csr_matrix((stop - start, counts.shape[1]), dtype=counts.dtype)
    rows.data, rows.indices = counts.data[begin:end], counts.indices[begin:end]
    rows.indptr = counts.indptr[start : stop + 1] - begin
    return rows


def embed_cells(model: Model, cells: Cells, rows: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and variance (n, d) float32 of cells whose first product is at hand."""
    with torch.inference_mode(), fast_products(cells.product.device, exact=True):
        mean, variance = model.encode(cells, rows)
        return mean.float().cpu().numpy(), variance.float().cpu().numpy()


def graft_rows(
    graft: Graft | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """New columns of a graft as tensors; none without a graft."""
    rows = {} if graft is None else graft.rows
    return {name: torch.tensor(row, device=device) for name, row in rows.items()}

"""A reference's frozen model in torch, and a query's cells as it takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgraft.errors import BadOption
from scgraft.model.families import family_of
from scgraft.model.vae import Cells
from scgraft.numerics.products import fast_products
from scgraft.numerics.tensors import as_tensor
from scgraft.values.blocks import PROTEINS
from scgraft.values.graft import Graft
from scgraft.values.options import device_name
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scgraft.model.protocol import Model


def pick_device(name: str) -> torch.device:
    """``"auto"`` is CUDA when there is one, else the CPU.

    Raises
    ------
    BadOption
        No device has such a name, or this machine has no such CUDA device.
    """
    if device_name(name) == "cpu":
        return torch.device(name)
    there = cuda_devices()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if int(name.removeprefix("cuda").removeprefix(":") or 0) >= there:
        raise BadOption(
            f"device is {name!r}, but torch finds {there or 'no'} CUDA device{'s' * (there != 1)} here. Take 'cpu', or 'auto', which takes "
            "CUDA where there is one."
        )
    return torch.device(name)


def cuda_devices() -> int:
    """How many CUDA devices torch finds."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


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
    cells = inputs(
        codes,
        query.continuous,
        total,
        size_factor=query.size_factor,
        labels=query.label_codes,
        product=model.product(query.counts, query.blocks),
        device=device,
        dtype=dtype,
    )
    if query.own is not None:
        cells = replace(cells, own=torch.as_tensor(query.own.astype(np.int64)).to(device))
    if PROTEINS not in query.blocks:
        return cells
    block = query.blocks[PROTEINS]
    own, measured = (as_tensor(array).to(device, dtype) for array in (block.counts.toarray(), block.measured))
    return replace(cells, proteins=own, measured=measured)


def inputs(
    codes: np.ndarray,
    continuous: np.ndarray,
    library: np.ndarray | None,
    *,
    size_factor: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    product: torch.Tensor | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Cells:
    """Arrays of cells as a model takes them.

    Parameters
    ----------
    codes, continuous
        Codes (n, 1 + c) of batch and covariates, and continuous covariates (n, k).
    library
        Observed library size in counts, (n,), or with a depth beside it, (n, 2); None where it is not known, which stands for one count.
    size_factor, labels
        Size factors (n,), and codes of the labels (n,), -1 where unknown.
    product
        First product of the encoders over the genes; None where only the decoder is asked.
    """
    with np.errstate(divide="ignore"):
        log_library = np.log(np.ones(len(codes)) if library is None else library.astype(np.float64))
        log_library = log_library if log_library.ndim == 2 else log_library[:, None]

    def move(array: np.ndarray) -> torch.Tensor:
        return as_tensor(array).to(device, dtype)

    return Cells(
        product=torch.zeros(len(codes), 0, device=device) if product is None else product,
        codes=torch.as_tensor(codes.astype(np.int64)).to(device),
        continuous=move(continuous),
        library=move(log_library),
        size_factor=None if size_factor is None else move(size_factor[:, None]),
        labels=None if labels is None else torch.as_tensor(labels.astype(np.int64)).to(device),
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
        blocks={name: block.take(index) for name, block in query.blocks.items()},
        own=None if query.own is None else query.own[index],
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

"""A reference's frozen model in torch, and a query's cells as it takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgraft.families import family_of
from scgraft.nn.vae import Cells
from scgraft.values import Graft, Query, Reference

if TYPE_CHECKING:
    from scgraft.nn.scanvae import Scanvae
    from scgraft.nn.vae import Vae

BLOCK = 1024


def pick_device(name: str) -> torch.device:
    """``"auto"`` is CUDA when there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def build(reference: Reference, device: torch.device, dtype: torch.dtype = torch.float32) -> Vae | Scanvae:
    """The reference's frozen model in torch."""
    return family_of(reference.base.family).build(reference, device, dtype)


def make_cells(
    model: Vae | Scanvae,
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
        return torch.as_tensor(array).to(device, dtype)

    return Cells(
        product=model.product(query.counts),
        codes=torch.as_tensor(codes).to(device),
        continuous=move(query.continuous),
        library=move(library),
        size_factor=None if query.size_factor is None else move(query.size_factor[:, None]),
        labels=None if query.label_codes is None else torch.as_tensor(query.label_codes.astype(np.int64)).to(device),
    )


def embed_cells(model: Vae | Scanvae, cells: Cells, rows: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and variance (n, d) float32, in blocks of fixed size."""
    n = len(cells.product)
    means, variances = [], []
    with torch.inference_mode():
        for start in range(0, n, BLOCK):
            index = torch.arange(start, min(start + BLOCK, n), device=cells.product.device)
            mean, variance = model.encode(cells.take(index), rows)
            means.append(mean.float().cpu())
            variances.append(variance.float().cpu())
    return torch.cat(means).numpy(), torch.cat(variances).numpy()


def graft_rows(
    graft: Graft | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """New columns of a graft as tensors; none without a graft."""
    rows = {} if graft is None else graft.rows
    return {name: torch.tensor(row, device=device) for name, row in rows.items()}

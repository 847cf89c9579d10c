"""Stored counts on the model's device: all cells of a fit once, and the mini-batches that are taken from them.

Nothing here waits for the device: how many counts a mini-batch has is known on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scgraft.numerics.tensors import as_tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class StoredCounts:
    """Stored counts of a mini-batch, row after row.

    `position` (nnz,) into the flattened (n, G) matrix and `value` (nnz,) of each stored count; `starts` (n + 1,) where
    each cell's begin, on the host; `constant` (n,) what a cell's log-likelihood holds that nothing trainable moves.
    """

    position: Tensor
    value: Tensor
    starts: np.ndarray
    constant: Tensor

    def rows(self, start: int, stop: int, n_genes: int) -> StoredCounts:
        """The counts of the cells from `start` to `stop`."""
        if start == 0 and stop == len(self.constant):
            return self
        stored = slice(int(self.starts[start]), int(self.starts[stop]))
        position = self.position[stored] - start * n_genes
        starts = self.starts[start : stop + 1] - self.starts[start]
        return StoredCounts(position, self.value[stored], starts, self.constant[start:stop])

    def sum(self, per_count: Tensor) -> Tensor:
        """Sum of a number per stored count over the counts of each cell, (n,)."""
        lengths = torch.from_numpy(np.diff(self.starts)).to(per_count.device, non_blocking=True)
        return torch.segment_reduce(per_count, "sum", lengths=lengths, unsafe=True)

    def dense(self, n_genes: int) -> Tensor:
        """The counts with their zeros, (n, G)."""
        flat = self.value.new_zeros(len(self.constant) * n_genes)
        return flat.scatter_(0, self.position, self.value).view(-1, n_genes)


@dataclass(frozen=True)
class CountStore:
    """Counts of many cells on the device: `gene` and `value` (nnz,), `first` (n,) and, on the host, `starts` (n + 1,)."""

    gene: Tensor
    value: Tensor
    first: Tensor
    starts: np.ndarray
    constant: Tensor
    n_genes: int

    def take(self, index: np.ndarray, where: Tensor) -> StoredCounts:
        """Counts of the cells `index`, which is `where` on the device."""
        lengths = np.diff(self.starts)[index]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        total, device = int(starts[-1]), self.gene.device
        shift = self.first[where] - torch.from_numpy(starts[:-1]).to(device, non_blocking=True)
        row = torch.repeat_interleave(
            torch.arange(len(index), device=device),
            torch.from_numpy(lengths).to(device, non_blocking=True),
            output_size=total,
        )
        source = shift.index_select(0, row).add_(torch.arange(total, device=device))
        position = row.mul_(self.n_genes).add_(self.gene.index_select(0, source))
        return StoredCounts(position, self.value.index_select(0, source), starts, self.constant[where])


def store_counts(counts: csr_matrix, per_count: Tensor | None, like: Tensor) -> CountStore:
    """Move counts to the device of `like` once; `per_count` (nnz,) are the constants of the stored counts, if any."""
    starts = counts.indptr.astype(np.int64)
    value = as_tensor(counts.data).to(like)
    constant = like.new_zeros(counts.shape[0])
    if per_count is not None:
        sums = np.add.reduceat(np.append(per_count.double().cpu().numpy(), 0.0), starts[:-1])
        constant = torch.as_tensor(np.where(np.diff(starts) > 0, sums, 0.0)).to(like)
    return CountStore(
        gene=torch.as_tensor(counts.indices.astype(np.int64)).to(like.device),
        value=value,
        first=torch.as_tensor(starts[:-1]).to(like.device),
        starts=starts,
        constant=constant,
        n_genes=counts.shape[1],
    )

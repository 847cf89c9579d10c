"""The field's normalisation of counts: log1p of counts per ten thousand."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

TARGET = 1e4  # counts per cell after scaling: scanpy's tutorials, and so most published matrices


def log_normalised(counts: csr_matrix) -> csr_matrix:
    """log1p of counts per ten thousand, cell by cell.

    Parameters
    ----------
    counts
        Raw counts (n, G), CSR.

    Returns
    -------
    csr_matrix
        (n, G) float32 with the zeros of the counts; a cell without any count stays empty.
    """
    total = np.asarray(counts.sum(axis=1), np.float64).ravel()
    scale = (TARGET / np.maximum(total, 1.0)).astype(np.float32)
    found = csr_matrix(counts, dtype=np.float32, copy=True)
    found.data = np.log1p(found.data * np.repeat(scale, np.diff(found.indptr)))
    found.eliminate_zeros()
    return found

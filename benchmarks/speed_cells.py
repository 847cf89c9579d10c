"""Seeded generator of raw UMI counts for the speed benchmarks: types, batches, a heavy tail of gene abundances.

``python benchmarks/speed_cells.py reference|query CELLS SEED FILE`` writes an AnnData. All files of one run share the
genes and the types; the query has two batches that no reference has, and one type that the reference lacks.
"""

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

N_GENES = 3000
TYPES = 13
REFERENCE_BATCHES = ("donor 1", "donor 2", "donor 3")
QUERY_BATCHES = ("lab A", "lab B")
BLOCK = 5000


def programs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log abundances of the genes by type (TYPES, G), two continuous programs, batch effects and inverse dispersions."""
    rng = np.random.default_rng(1)
    base = rng.normal(-3.3, 1.6, N_GENES)
    types = rng.normal(0, 1.3, (TYPES, N_GENES)) * (rng.random((TYPES, N_GENES)) < 0.12)
    continuous = rng.normal(0, 0.35, (2, N_GENES)) * (rng.random((2, N_GENES)) < 0.3)
    batches = rng.normal(0, 1, (len(REFERENCE_BATCHES) + len(QUERY_BATCHES), N_GENES))
    batches *= np.array([0.2] * len(REFERENCE_BATCHES) + [0.4] * len(QUERY_BATCHES))[:, None]
    return base + types, continuous, batches, rng.gamma(2.0, 1.0, N_GENES) + 0.1


def make_cells(part: str, n: int, seed: int) -> anndata.AnnData:
    """Raw UMI counts (n, 3000), about 10 % of them stored; obs has ``batch`` and ``cell_type``."""
    types, continuous, effects, theta = programs()
    rng = np.random.default_rng([seed, part == "query"])
    names = REFERENCE_BATCHES if part == "reference" else QUERY_BATCHES
    offset = 0 if part == "reference" else len(REFERENCE_BATCHES)
    share = rng.dirichlet(np.full(TYPES, 3.0))
    if part == "reference":
        share[-1] = 0
    kind = rng.choice(TYPES, n, p=share / share.sum())
    batch = rng.integers(0, len(names), n)
    blocks = []
    for start in range(0, n, BLOCK):
        k, b = kind[start : start + BLOCK], batch[start : start + BLOCK]
        log_rate = types[k] + rng.normal(0, 1, (len(k), 2)) @ continuous + effects[offset + b]
        rate = np.exp(log_rate)
        rate *= (np.exp(rng.normal(6.4, 0.35, len(k))) / rate.sum(axis=1))[:, None]
        counts = rng.poisson(rate * rng.standard_gamma(theta, rate.shape) / theta)
        blocks.append(sparse.csr_matrix(counts.astype(np.float32)))
    obs = pd.DataFrame(
        {"batch": np.array(names)[batch], "cell_type": [f"type {t + 1}" for t in kind]},
        index=[f"{part} {i}" for i in range(n)],
    )
    return anndata.AnnData(sparse.vstack(blocks, format="csr"), obs=obs.astype("category"), var=gene_names())


def gene_names() -> pd.DataFrame:
    """Names of the genes."""
    return pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(1, N_GENES + 1)])


def write(part: str, n: int, seed: int, path: Path) -> None:
    """Write the cells, unless the file is there."""
    if not path.exists():
        temporary = path.with_suffix(".part")
        make_cells(part, n, seed).write_h5ad(temporary)
        temporary.rename(path)


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

"""Ambient RNA: counts of other cells that every droplet of a batch has, so that a single cell looks like a mixture of types.

As in SoupX (Young and Behjati 2020, doi:10.1093/gigascience/giaa151) a batch has one share of it, and as in DecontX (Yang et al. 2020,
doi:10.1186/s13059-020-1950-6) it is made of what the batch's cells are made of. The empty droplets are not known here, so the share is
read from the cells: each says which share explains it best beside its type, and the first quartile of what they say counts. Doublets
and cells of a missing type ask for more than their batch has, and cells without ambient RNA ask for none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.novelty.limits import QUARTER
from scgraft.novelty.mixtures import BLOCK, LEAST, Profiles, mixture_shares
from scgraft.novelty.score import LEAST_BATCH

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Shares that are tried: SoupX reports up to a half. Finer steps were not tried.
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
ROUNDS = 300  # of expectation maximisation, on one row for each batch: until nothing changes


def with_ambient(profiles: Profiles, counts: csr_matrix, batch: np.ndarray) -> Profiles:
    """The profiles, and what ambient RNA adds to cells in each batch of a query.

    Its profile is the mixture of the types' profiles that explains the sum of the batch's cells best, not that sum: what the model gets
    wrong about the laboratory would look like ambient RNA.

    Parameters
    ----------
    counts
        Raw counts of the query, (n, G).
    batch
        Codes of the cells' batches, (n,); one of fewer than 20 cells is left as it is.
    """
    soup = {}
    for code in np.unique(batch):
        own = np.flatnonzero(batch == code)
        if len(own) < LEAST_BATCH:
            continue
        cells = counts[own][:, profiles.genes]
        total = np.asarray(cells.sum(axis=0), np.float64).reshape(1, -1)
        if not total.any():
            continue
        of_batch = (mixture_shares(total, profiles.shares, ROUNDS) @ profiles.shares)[0]
        soup[int(code)] = (ambient_share(cells, profiles.shares, of_batch) * of_batch).astype(np.float32)
    return replace(profiles, soup=soup)


def ambient_share(counts: csr_matrix, shares: np.ndarray, ambient: np.ndarray) -> float:
    """Share of ambient RNA in the counts (n, g) of a batch's cells, between 0 and 0.5.

    Parameters
    ----------
    shares
        Profiles of the types, (C, g).
    ambient
        Profile of the ambient RNA, (g,).
    """
    logged = [np.log(np.maximum((1 - a) * shares + a * ambient, LEAST)).T.astype(np.float32) for a in SHARES]
    asked = []
    for start in range(0, counts.shape[0], BLOCK):
        own = counts[start : start + BLOCK].toarray().astype(np.float32)
        likelihood = np.stack([(own @ one).max(axis=1) for one in logged])
        asked.append(np.array(SHARES)[likelihood.argmax(axis=0)])
    return float(np.quantile(np.concatenate(asked), QUARTER))

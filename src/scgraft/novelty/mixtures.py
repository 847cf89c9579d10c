"""Two types at once: doublets, and spots that hold several cells.

A cell's counts are explained by a mixture of the reference's types, each stood for by what the decoder predicts at the type's mean
latent, and the likelihood is compared with that of the best single type. That is the question of RCTD's doublet mode (Cable et al.
2022, doi:10.1038/s41587-021-00830-w), with profiles from the model instead of from counts. They are those of the reference's own
batches: where most of a query are mixtures, the columns that are fitted to it make mixtures look like cells. Held-out cells of the
reference, which are judged by the others, say how much a single cell gains. Ambient RNA (:mod:`scgraft.novelty.ambient`) is in every
cell of a batch, and no second cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scgraft.expression.generate import counted_cells
from scgraft.expression.residuals import decoder
from scgraft.numerics.conformal import denser_tail, threshold_at
from scgraft.reference.cells import reference_codes
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# That tell the types apart best: with all of them test doublets of PBMC and islets are ranked as well (areas under the curve .968 and
# .963 instead of .962 and .964, measured with profiles of the query's batches, an earlier variant), at ten times the cost.
GENES = 300
BATCHES = 8  # of the reference that a type's profile is the mean of; chosen by eye, not measured
ROUNDS = 15  # of expectation maximisation; chosen by eye: the areas above are those of 15, and of 30 with all genes
BLOCK = 2048  # cells at a time: their counts in the genes that are used are a few megabytes; chosen by eye
# Of held-out cells are called mixed: every called cell loses its label, so less than novelty's; chosen by eye.
RATE = 0.02
SPOTS = 0.3  # of a query's cells mixed: more than any overloaded droplet run has, whose doublets are up to a tenth; chosen by eye
DENSER = 2.0  # than held-out cells: there more than half are mixtures, whatever share of the query they are
LEAST = 1e-9  # of a type's counts that a gene has: a single count of a silent gene must not decide; chosen by eye


@dataclass(frozen=True)
class Profiles:
    """What cells of each type are made of.

    Parameters
    ----------
    genes
        Positions of the genes that are used, (g,).
    shares
        Share of every gene in the counts of every type, (C, g) float32.
    limit
        Gain above which a cell is mixed.
    soup
        By batch code, what ambient RNA adds to a cell of the batch, as shares of the cell's counts, (g,) float32 each; their sum is the
        share of ambient RNA, which may be 0. Batches that are not named were not looked at.
    """

    genes: np.ndarray
    shares: np.ndarray
    limit: float = float("inf")
    soup: Mapping[int, np.ndarray] = field(default_factory=dict)

    def gain(self, counts: csr_matrix, batch: np.ndarray) -> np.ndarray:
        """How much better a mixture of types explains cells than the best single type, (n,) float32.

        `counts` (n, G) are raw, `batch` (n,) are the codes of the cells' batches. Every profile has the batch's share `a` of ambient
        RNA. What tells types apart is (1 - a) of what it was, and the likelihood goes by its square, so the gain is divided by
        (1 - a)^2 and is compared with that of held-out cells, which have none.
        """
        out = np.zeros(counts.shape[0], np.float32)
        for start in range(0, counts.shape[0], BLOCK):
            own = counts[start : start + BLOCK][:, self.genes].toarray().astype(np.float32)
            of = batch[start : start + BLOCK]
            for code in np.unique(of):
                soup = self.soup.get(int(code), np.zeros(1, np.float32))
                left, rows = 1 - float(soup.sum()), np.flatnonzero(of == code)
                out[start + rows] = mixture_gain(own[rows], left * self.shares + soup) / left**2
        return out

    def strength(self, counts: csr_matrix, batch: np.ndarray) -> np.ndarray:
        """The gain over its limit, (n,) float32: above 1 a cell is mixed."""
        return self.strength_of(self.gain(counts, batch))

    def strength_of(self, gain: np.ndarray) -> np.ndarray:
        """The same of gains (n,) that are known."""
        return (gain / max(self.limit, LEAST)).astype(np.float32)


def mixture_gain(counts: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """Log-likelihood of the best mixture of profiles (C, g) less that of the best single one, over the root of the counts, (n,).

    The counts (n, g) are multinomial given their sum; the shares of the types come from expectation maximisation. What noise gains does
    not grow with the counts, and what a model gets wrong grows as they do: the root lies between.
    """
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    share = mixture_shares(counts, profile, ROUNDS)
    mixed = (counts * np.log(np.maximum(share @ profile, LEAST))).sum(axis=1)
    single = (counts @ np.log(np.maximum(profile, LEAST)).T).max(axis=1)
    gain: np.ndarray = np.maximum(mixed - single, 0.0) / np.sqrt(total[:, 0])
    return gain


def mixture_shares(counts: np.ndarray, profile: np.ndarray, rounds: int) -> np.ndarray:
    """Shares (n, C) of profiles (C, g) in counts (n, g) after some rounds of expectation maximisation, from equal ones."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    share = np.full((len(counts), len(profile)), 1 / len(profile), counts.dtype)
    for _ in range(rounds):
        share *= (counts / np.maximum(share @ profile, LEAST)) @ profile.T / total
    return share


def mixture_limit(gain: np.ndarray, held: np.ndarray, *, spatial: bool) -> float:
    """Gain above which a cell of a query is mixed, from the gains of its cells (n,) and of held-out cells of the reference (m,).

    It is what few held-out cells exceed. Where more than three cells of ten of a `spatial` file do, these are spots. Then a spot is mixed
    where such gains are twice as dense among them as among held-out cells, so that it is a mixture more probably than a cell (a local
    false discovery rate of a half; Efron 2004, doi:10.1198/016214504000000089). Files of cells keep the limit: ambient RNA, and types
    that the reference lacks, make most of their cells look mixed too.
    """
    limit = threshold_at(held, RATE)
    if not spatial or not (gain > limit).mean() > SPOTS:
        return limit
    return min(limit, denser_tail(gain, held, DENSER))


def type_profiles(
    reference: Reference, codes: np.ndarray, present: np.ndarray, *, device: str = "auto"
) -> Profiles | None:
    """Profiles of the reference's types, as its own batches have them; None with fewer than two types, and without counts.

    Parameters
    ----------
    codes
        Class of every reference cell, (n,); -1 for none.
    present
        Genes that the query has, (G,) bool.
    device
        As for :func:`scgraft.embed`.
    """
    names = np.unique(codes[codes >= 0])
    present = present & (
        np.arange(len(present)) < len(present) - reference.schema.n_regions
    )  # counts of molecules, not open regions
    if len(names) < 2 or not present.any() or reference.hyper.gene_likelihood in ("normal", "bernoulli"):
        return None
    assert reference.latent is not None
    centres = np.stack([reference.latent.mean[codes == c].mean(axis=0) for c in names])
    first = np.unique(reference_codes(reference)[:, 0], return_index=True)[1]
    some = first[np.unique(np.linspace(0, len(first) - 1, BATCHES).astype(int))]
    decode = decoder(reference, counted_cells(reference, some), None, device=device)
    whole = np.zeros((len(names), len(present)))
    for i in range(len(some)):
        made = decode(centres, np.full(len(names), i))[0] * present
        whole += made / np.maximum(made.sum(axis=1, keepdims=True), LEAST) / len(some)
    centre = whole.mean(axis=0)
    apart = ((whole - centre) ** 2).sum(axis=0) / (centre + LEAST)
    genes = np.sort(np.argsort(-np.where(present, apart, -1.0), kind="stable")[: min(GENES, int(present.sum()))])
    shares = whole[:, genes] / np.maximum(whole[:, genes].sum(axis=1, keepdims=True), LEAST)
    return Profiles(genes, shares.astype(np.float32))

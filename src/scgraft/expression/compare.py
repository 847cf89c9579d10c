"""Differential expression between query and reference cells of one class, from latents alone.

The change mode of Boyeau et al. (PNAS 2023, doi:10.1073/pnas.2209124120): pairs of a query and a reference cell are drawn
with their latents, decoded under the same batch, and a gene differs where the log2 fold change of the pairs lies beyond a
threshold on one side with a high probability. Genes are called in the order of that probability, as long as the expected
share of wrong calls stays below a limit. No count of the reference is needed, and none of the query after its mapping.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgraft.cards.lint import decoder_doubts
from scgraft.cards.metrics import ClassMetrics, ModelMetrics
from scgraft.cards.reading import parse_card
from scgraft.errors import NoLabels
from scgraft.expression.cells import LatentCells, reference_cells
from scgraft.expression.decode import batch_codes, decode, decoder_inputs
from scgraft.graft.levels import check_graft
from scgraft.model.build import build, graft_rows, pick_device
from scgraft.numerics.products import fast_products
from scgraft.numerics.sealed import seal_fields
from scgraft.numerics.tensors import as_tensor
from scgraft.values.graft import Graft
from scgraft.values.names import level_name
from scgraft.values.reference import Reference
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Query against reference cells of one class.

    Parameters
    ----------
    label
        The class.
    table
        One row for each gene, the surest first: ``probability`` that it differs, ``log2_change`` (query over reference;
        mean over the pairs) and its spread ``log2_change_sd``, ``bayes_factor`` (natural log of the odds),
        ``query_frequency`` and ``reference_frequency`` (share of the counts), and ``differs``: called at the limit.
    n_query, n_reference
        Cells of the class on either side.
    batches
        Batches that both sides were decoded under; empty where each cell kept its own.
    threshold, error_rate, n_pairs
        The settings.
    quality
        The card's metrics of this class, None where it has none.
    doubts
        Reasons not to trust the decoder here, from the reference's own metrics.
    """

    label: str
    table: pd.DataFrame
    n_query: int
    n_reference: int
    batches: tuple[str, ...]
    threshold: float
    error_rate: float
    n_pairs: int
    quality: ClassMetrics | None
    doubts: tuple[str, ...]

    def __post_init__(self) -> None:
        seal_fields(self)

    def __str__(self) -> str:
        called = int(self.table["differs"].sum())
        if self.quality is None:
            quality = "the card has no metrics of this class"
        else:
            q = self.quality
            quality = (
                f"the card's metrics of this class: {q.n_cells} cells, gene F1 {q.gene_f1:.2f}, correlation of fold "
                f"changes {q.lfc_pearson:.2f}, ROC AUC {q.roc_auc:.2f}"
            )
        lines = [
            f"{self.label}: {self.n_query} query cells against {self.n_reference} of the reference",
            f"{called} of {len(self.table)} genes differ by more than {self.threshold} in log2, at an expected error rate "
            f"of {self.error_rate:.0%}",
            quality,
        ]
        return "\n".join([*lines, *(f"Doubt: {doubt}" for doubt in self.doubts)])

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def compare_expression(
    reference: Reference,
    cells: LatentCells,
    graft: Graft | None,
    classes: Sequence[str] | np.ndarray,
    label: str,
    *,
    labels: str | None = None,
    batch: str | Sequence[str] | None = "reference",
    threshold: float = 0.25,  # as `delta` of scvi-tools' differential_expression
    error_rate: float = 0.05,  # the usual false discovery rate, as `fdr_target` there
    pseudocount: float = 1e-5,  # a tenth of a count in ten thousand; chosen by eye, not measured
    n_pairs: int = 5000,  # as `n_samples_overall` there
    metrics: ModelMetrics | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Comparison:
    """Compare query cells of a class with the reference's, without counts.

    Parameters
    ----------
    reference
        The reference, with the posterior and the labels of its cells.
    cells
        The query, from :func:`scgraft.query_cells`.
    graft
        The query's graft, or a merged one.
    classes
        Class of each query cell, for example ``mapped.labels[key].label``.
    label
        The class to compare.
    labels
        obs column of the reference's classes; None takes the reference's own.
    batch
        What both sides are decoded under: ``"reference"`` for the reference's batches that have the class, names of
        batches, or None for each cell's own, which leaves technical differences in.
    threshold
        Smallest log2 fold change that matters.
    error_rate
        Limit of the expected share of wrong calls among the genes that are called.
    pseudocount
        Frequency that is added to both sides, so that genes without expression do not differ by chance.
    n_pairs
        Pairs of cells to draw.
    metrics
        Metrics of the reference's decoder; None takes those of its card.
    seed
        Seed of the pairs and of their latents.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    Comparison
        A warning is given where the reference's own metrics say that its decoder is not to be trusted.

    Raises
    ------
    NoLabels
        The reference has no such column, or one side has no cell of the class.
    UnknownBatch
        `batch` is not a batch of the reference or the graft.
    BaseMismatch
        The graft was made for another reference.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> import warnings
    >>> cells = scgraft.query_cells(reference, query, graft)
    >>> types = adata.obs["cell_type"].astype(str).to_numpy()
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # the card of the tiny reference says nothing good of its decoder
    ...     found = scgraft.compare_expression(reference, cells, graft, types, "beta", n_pairs=100)
    >>> found.table.shape[0], "log2_change" in found.table
    (30, True)
    """
    check_graft(reference, graft)
    own = reference_cells(reference)
    theirs = own.take(_members(reference, labels, label))
    mine = cells.take(np.asarray(classes, str) == label)
    if not len(mine):
        raise NoLabels(
            f"No query cell is labelled {label!r}; there are {', '.join(sorted(set(map(str, classes)))[:8])}. Choose one of these."
        )
    schema = reference.schema
    names = [schema.batches[code] for code in np.unique(theirs.codes[:, 0])] if batch == "reference" else batch
    codes = batch_codes(reference, graft, names)
    statistics = _pair_statistics(
        reference, graft, (mine, theirs), codes,
        n_pairs=n_pairs, threshold=threshold, pseudocount=pseudocount, seed=seed, device=device,
    )  # fmt: skip
    if metrics is None and reference.card is not None:
        metrics = parse_card(reference.card).metrics
    doubts = decoder_doubts(metrics, label)
    if doubts:
        text = f"The comparison of {label!r} rests on a decoder that is not to be trusted: {' '.join(doubts)}"
        warnings.warn(text, UserWarning, stacklevel=2)
    return Comparison(
        label=label,
        table=_table([str(gene) for gene in schema.genes], statistics, error_rate),
        n_query=len(mine),
        n_reference=len(theirs),
        batches=() if names is None else (names,) if isinstance(names, str) else tuple(names),
        threshold=threshold,
        error_rate=error_rate,
        n_pairs=n_pairs,
        quality=None if metrics is None else metrics.diff_exp.get(label),
        doubts=doubts,
    )


def calls_at(probability: np.ndarray, error_rate: float) -> np.ndarray:
    """The most genes, surest first, whose expected share of wrong calls is at most `error_rate`; (G,) bool."""
    order = np.argsort(-probability, kind="stable")
    expected = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    called = np.zeros(len(order), bool)
    called[order[: int(np.searchsorted(expected, error_rate, side="right"))]] = True
    return called


def _members(reference: Reference, labels: str | None, label: str) -> np.ndarray:
    key, obs = labels or reference.schema.labels_key, reference.obs
    if obs is None or key is None or key not in obs:
        has = "none" if obs is None else ", ".join(map(str, obs.columns))
        raise NoLabels(
            f"The reference's cells have no label column {key!r}; they have {has}. Name one of these as labels=..."
        )
    names = np.array([level_name(value) for value in obs[key]], str)
    if label not in names:
        raise NoLabels(
            f"No reference cell is labelled {label!r} in obs[{key!r}]; there are {', '.join(np.unique(names)[:8])}. Choose one of "
            "these."
        )
    return names == label


def _pair_statistics(
    reference: Reference,
    graft: Graft | None,
    sides: tuple[LatentCells, LatentCells],
    codes: Sequence[int | None],
    *,
    n_pairs: int,
    threshold: float,
    pseudocount: float,
    seed: int,
    device: str,
) -> dict[str, np.ndarray]:
    """Sums over the pairs, block by block; each pair shares its batch."""
    where, random = pick_device(device), np.random.default_rng(seed)
    model, rows = build(reference, where), graft_rows(graft, where)
    block, n_genes = 256, len(reference.schema.genes)
    sums = {name: np.zeros(n_genes) for name in ("up", "down", "change", "square", "query", "reference")}
    with torch.inference_mode(), fast_products(where, exact=True):
        for start in range(0, n_pairs, block):
            n = min(block, n_pairs - start)
            chosen = random.integers(len(codes), size=n)
            scales = []
            for side in sides:
                drawn = side.take(random.integers(len(side), size=n))
                noise = random.standard_normal(drawn.latent.mean.shape)
                z = (drawn.latent.mean + np.sqrt(drawn.latent.variance) * noise).astype(np.float32)
                if codes[0] is not None:
                    batch = np.array(codes)[chosen, None].astype(np.int64)
                    drawn = replace(drawn, codes=np.concatenate([batch, drawn.codes[:, 1:]], axis=1))
                inputs = decoder_inputs(drawn, where)
                scales.append(decode(model, as_tensor(z).to(where), inputs, rows, None).scale)
            change = torch.log2(scales[0] + pseudocount) - torch.log2(scales[1] + pseudocount)
            for name, values in (
                ("up", change > threshold), ("down", change < -threshold), ("change", change),
                ("square", change.square()), ("query", scales[0]), ("reference", scales[1]),
            ):  # fmt: skip
                sums[name] += values.sum(dim=0, dtype=torch.float64).cpu().numpy()
    return {name: values / n_pairs for name, values in sums.items()}


def _table(genes: Sequence[str], statistics: dict[str, np.ndarray], error_rate: float) -> pd.DataFrame:
    import pandas as pd

    # One side only: within a class whose cells differ among themselves, pairs lie far apart on both sides.
    probability = np.maximum(statistics["up"], statistics["down"])
    spread = np.sqrt(np.maximum(statistics["square"] - statistics["change"] ** 2, 0))
    table = pd.DataFrame(
        {
            "probability": probability,
            "log2_change": statistics["change"],
            "log2_change_sd": spread,
            "bayes_factor": np.log(probability + 1e-8) - np.log(1 - probability + 1e-8),
            "query_frequency": statistics["query"],
            "reference_frequency": statistics["reference"],
            "differs": calls_at(probability, error_rate),
        },
        index=pd.Index(genes, name="gene"),
    )
    order = np.lexsort((-np.abs(table["log2_change"].to_numpy()), -probability))
    return table.iloc[order]

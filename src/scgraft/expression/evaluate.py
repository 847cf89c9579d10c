"""The card's metrics of a reference, from counts of its own cells and draws from its model, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from scgraft.cards.metrics import ModelMetrics, Style, metrics_from_draws
from scgraft.errors import NoLabels
from scgraft.expression.cells import query_cells
from scgraft.expression.decode import predictive_blocks
from scgraft.expression.residuals import observed
from scgraft.reference.counts import _own_counts, own_query
from scgraft.values.names import level_name
from scgraft.values.options import one_of
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData


def evaluate(
    reference: Reference,
    adata: AnnData | None = None,
    *,
    labels: str | None = None,
    n_samples: int = 5,  # as scvi.criticism.create_criticism_report has it
    style: Style = "corrected",
    seed: int = 0,
    device: str = "auto",
) -> ModelMetrics:
    """How well counts drawn from the model look like those of the reference's cells: the metrics of a model card.

    Parameters
    ----------
    reference
        The reference.
    adata
        Raw counts of the reference's cells; None takes those that its repository holds.
    labels
        obs column of the classes for differential expression; None takes the reference's own, where it has one.
    n_samples
        Draws from the model for each cell.
    style
        ``"corrected"``, or ``"legacy"`` for numbers as scvi-tools 1.2 to 1.4 publishes them; see
        :mod:`scgraft.cards.metrics`.
    seed
        Seed of the draws.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    ModelMetrics
        Cells without any count are left out. Training and validation cells are told apart by the split that the model
        stores, where all of them are there.

    Raises
    ------
    NotCounts
        The repository holds no counts, and none were given.
    BadOption
        `style` is another word.
    NoLabels
        There is no such column.
    QueryError
        The counts do not fit the reference.

    Examples
    --------
    >>> import scgraft
    >>> from scgraft.testing import TinyConfig, write_hub_folder
    >>> folder, _ = scgraft.testing.example()
    >>> reference = scgraft.load_reference(write_hub_folder(folder.parent / "with counts", TinyConfig()))
    >>> metrics = scgraft.evaluate(reference, n_samples=2)
    >>> metrics.style, sorted(metrics.diff_exp)
    ('corrected', ['alpha', 'beta', 'delta'])
    """
    one_of("style", style, get_args(Style))
    if adata is None:
        adata = _own_counts(reference)
    query = own_query(reference, adata)
    cells = query_cells(reference, query, device=device)
    key = labels if labels is not None else reference.schema.labels_key
    if labels is not None and labels not in adata.obs:
        raise NoLabels(
            f"There is no column obs[{labels!r}]; there are {', '.join(map(str, adata.obs.columns))}. Name one."
        )
    classes = None
    if key is not None and key in adata.obs:
        kept = adata.obs[key].set_axis(adata.obs_names.astype(str)).loc[query.cells]
        classes = [level_name(value) for value in kept]
    train, validation = _split(reference, adata, query)
    draws = predictive_blocks(reference, cells, n_samples=n_samples, seed=seed, device=device)
    return metrics_from_draws(
        observed(reference, query.counts),
        draws,
        n_samples=n_samples,
        labels=classes,
        train=train,
        validation=validation,
        style=style,
    )


def _split(reference: Reference, adata: AnnData, query: Query) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Positions of the training and validation cells in the query; None where the split does not fit the data."""
    names = np.asarray(adata.obs_names.astype(str))
    position = {name: i for i, name in enumerate(query.cells)}
    parts = [reference.attributes.get(key) for key in ("train_indices_", "validation_indices_")]
    if any(part is None or len(part) == 0 for part in parts):
        return None, None
    together = np.concatenate([np.asarray(part, np.int64) for part in parts])
    if len(np.unique(together)) < len(together) or together.min() < 0 or together.max() >= len(names):
        return None, None
    train, validation = (
        np.array([position[n] for n in names[np.asarray(part, np.int64)] if n in position], np.int64) for part in parts
    )
    return train, validation

"""What is known of the reference's own cells: codes, classes, library sizes."""

from __future__ import annotations

import numpy as np

from scgraft.errors import NoLabels
from scgraft.values.names import column_text, level_name
from scgraft.values.reference import Reference

NOMINAL_LIBRARY = 3000.0  # counts of a usual droplet cell; chosen by eye, for references that do not say


def reference_classes(reference: Reference, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Classes that have cells, and each reference cell's code into them (-1 does not vote)."""
    import pandas as pd

    assert reference.obs is not None
    column = reference.obs[key]
    text = column_text(column)
    silent = np.asarray(column.isna())  # pandas lends it, and may lend it read-only
    if key == reference.schema.labels_key and reference.schema.unlabeled is not None:
        silent = silent | (text == reference.schema.unlabeled)
    classes = np.unique(text[~silent])
    if not len(classes):
        raise NoLabels(f"No cell of the reference has a value in obs[{key!r}].")
    return classes, np.where(silent, -1, pd.Index(classes).get_indexer(text))


def reference_codes(reference: Reference) -> np.ndarray:
    """Codes (n, 1 + c), int32, of the reference cells' batch and covariates; a column that is not stored is level 0."""
    assert reference.latent is not None
    schema, n = reference.schema, len(reference.latent.mean)
    keys = [schema.batch_key, *(c.key for c in schema.categorical)]
    columns = []
    for key, levels in zip(keys, schema.levels.values(), strict=True):
        position = {level: code for code, level in enumerate(levels)}
        if key is None or reference.obs is None or key not in reference.obs:
            columns.append(np.zeros(n, np.int32))
            continue
        values = [position.get(level_name(v), 0) for v in reference.obs[key].tolist()]
        columns.append(np.array(values, np.int32))
    return np.stack(columns, axis=1)


def library_sizes(reference: Reference) -> np.ndarray:
    """Library size (n,), float32, of the reference cells: as stored, else a nominal 3000 counts."""
    assert reference.latent is not None
    n = len(reference.latent.mean)
    if reference.library is None:
        return np.full(n, NOMINAL_LIBRARY, np.float32)
    least = 1e-6 if reference.hyper.gene_likelihood == "bernoulli" else 1.0  # a depth, or one count
    return np.maximum(np.asarray(reference.library, np.float32).ravel(), least)


def _continuous(reference: Reference) -> np.ndarray:
    assert reference.latent is not None
    columns = [
        np.zeros(len(reference.latent.mean), np.float32)
        if reference.obs is None or key not in reference.obs
        else np.nan_to_num(np.asarray(reference.obs[key], np.float32))
        for key in reference.schema.continuous
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((len(reference.latent.mean), 0), np.float32)


def _size_factors(reference: Reference, library: np.ndarray) -> np.ndarray | None:
    key = reference.schema.size_factor_key
    if key is None:
        return None
    if reference.obs is not None and key in reference.obs:
        return np.maximum(np.array(reference.obs[key], np.float32), 1e-6)
    return np.maximum(library / library.mean(), 1e-6).astype(np.float32)

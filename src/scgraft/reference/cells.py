"""What is known of the reference's own cells: codes, covariates, classes, library sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import CorruptFile, NoLabels
from scgraft.query.levels import combine
from scgraft.values.names import column_text
from scgraft.values.reference import Reference, Schema

if TYPE_CHECKING:
    import pandas as pd

NOMINAL_LIBRARY = 3000.0  # counts of a usual droplet cell; chosen by eye, for references that do not say


def reference_classes(reference: Reference, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Classes that have cells, and each reference cell's code into them (-1 does not vote)."""
    import pandas as pd

    assert reference.obs is not None
    text, silent = _names(reference.schema, reference.obs, key)
    classes = np.unique(text[~silent])
    if not len(classes):
        raise NoLabels(f"No cell of the reference has a value in obs[{key!r}].")
    return classes, np.where(silent, -1, pd.Index(classes).get_indexer(text))


def _names(schema: Schema, obs: pd.DataFrame, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Text (n,) of a column, and where it says nothing: no value, or the category of cells without a label."""
    column = obs[key]
    text = column_text(column)
    silent = np.asarray(column.isna())  # pandas lends it, and may lend it read-only
    if key in schema.label_keys and schema.unlabeled is not None:
        silent = silent | (text == schema.unlabeled)
    return text, silent


def label_key(schema: Schema, obs: pd.DataFrame | None) -> str | None:
    """The registry's label column, None where no cell has a label in it: the column was lost, or all cells are unlabeled.

    The second is what a saved query model is; its own classifier knows labels nonetheless.
    """
    key = schema.labels_key
    if key is None or obs is None or key not in obs:
        return None
    return None if _names(schema, obs, key)[1].all() else key


def column_codes(obs: pd.DataFrame, key: str, levels: tuple[str, ...]) -> np.ndarray:
    """Code (n,), int32, of each cell's value in an obs column, among the levels that the model was trained with.

    Raises
    ------
    CorruptFile
        A value that is none of these levels: nobody knows which of the model's columns are its own.
    """
    import pandas as pd

    names = column_text(obs[key])
    codes = pd.Index(levels).get_indexer(pd.Index(names))
    alien = codes < 0
    if alien.any():
        found = sorted(set(names[alien].tolist()))
        raise CorruptFile(
            f"obs[{key!r}] of the reference holds {_few(found)} ({int(alien.sum()):,} of {len(names):,} cells), which its model was not "
            f"trained with: the model's registry has {_few(levels)}. The column was renamed, or cells were added, after the training. "
            f"Give obs[{key!r}] of the reference's AnnData file the names that the registry has, or take the file that was "
            "saved with the model."
        )
    return codes.astype(np.int32)


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(map(repr, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def missing_columns(reference: Reference) -> tuple[str, ...]:
    """Columns of obs that the model was trained with and its cells lack; a covariate with a single level needs none."""
    return columns_lacking(reference.schema, reference.obs)


def columns_lacking(schema: Schema, obs: pd.DataFrame | None) -> tuple[str, ...]:
    """The same of a schema and the cells' annotation."""
    several = [key for name, key in schema.obs_keys.items() if len(schema.levels[name]) > 1]
    asked = [*several, *schema.continuous, schema.size_factor_key]
    return tuple(key for key in asked if key is not None and (obs is None or key not in obs))


def reference_codes(reference: Reference) -> np.ndarray:
    """Codes (n, 1 + c), int32, of the reference cells' batch and categorical covariates among the schema's levels.

    Raises
    ------
    CorruptFile
        A column with more than one level is missing, or it holds a value that the model was not trained with.
    """
    schema, obs = reference.schema, _annotated(reference)
    columns = []
    for name, levels in schema.levels.items():
        key = schema.obs_keys.get(name)
        columns.append(
            np.zeros(len(obs), np.int32) if key is None or key not in obs else column_codes(obs, key, levels)
        )
    return combine(np.stack(columns, axis=1), schema.levels, schema)[0]


def _annotated(reference: Reference) -> pd.DataFrame:
    """Annotation of the reference's cells, which says everything that the model was told of them."""
    lacking = missing_columns(reference)
    if lacking or reference.obs is None:
        raise CorruptFile(
            f"The reference's cells have no column {', '.join(f'obs[{key!r}]' for key in lacking) or 'at all'}, which its model was "
            "trained with: its cells can be neither generated nor decoded, and labels cannot be calibrated. Add the column to the "
            "AnnData file of the reference, or map with calibration=None (--no-calibration)."
        )
    return reference.obs


def library_sizes(reference: Reference) -> np.ndarray:
    """Library size (n,), float32, of the reference cells: as stored, else a nominal 3000 counts; MULTIVI's (n, 2) with a depth."""
    assert reference.latent is not None
    n = len(reference.latent.mean)
    if reference.library is None:
        return np.full(n, NOMINAL_LIBRARY, np.float32)
    if reference.schema.n_regions:  # a cell has no library of genes, or no depth, that it was not measured for
        return np.asarray(reference.library, np.float32)
    least = 1e-6 if reference.hyper.gene_likelihood == "bernoulli" else 1.0  # a depth, or one count
    return np.maximum(np.asarray(reference.library, np.float32).ravel(), least)


def continuous_covariates(reference: Reference) -> np.ndarray:
    """Continuous covariates (n, k), float32, of the reference cells; a missing value is 0.

    Raises
    ------
    CorruptFile
        A column is missing.
    """
    obs = _annotated(reference)
    columns = [np.nan_to_num(np.asarray(obs[key], np.float32)) for key in reference.schema.continuous]
    return np.stack(columns, axis=1) if columns else np.zeros((len(obs), 0), np.float32)


def size_factors(reference: Reference) -> np.ndarray | None:
    """Size factors (n,), float32, of the reference cells; None where the model was trained without.

    Raises
    ------
    CorruptFile
        The column is missing.
    """
    key = reference.schema.size_factor_key
    return None if key is None else np.maximum(np.array(_annotated(reference)[key], np.float32), 1e-6)

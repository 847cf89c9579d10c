"""What the reference asks of obs: batches, covariates, size factors and labels, coded as it codes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import BatchColumn, CovariateMissing, QueryError
from scgraft.values.names import BATCH, covariate_name, level_name
from scgraft.values.reference import Schema

if TYPE_CHECKING:
    import pandas as pd

FEW = 5  # examples in a sentence; chosen by eye
# What a missing name becomes on its way through text, R's too.
MISSING = frozenset({"", "nan", "NaN", "None", "<NA>", "NA"})


@dataclass(frozen=True)
class ObsCodes:
    """What the reference asks of the cells: see :class:`scgraft.Query` for the fields; `messages` are for the user."""

    codes: np.ndarray
    levels: Mapping[str, tuple[str, ...]]
    continuous: np.ndarray
    size_factor: np.ndarray | None
    label_codes: np.ndarray | None
    messages: tuple[str, ...]

    @property
    def cells_per_batch(self) -> dict[str, int]:
        """Number of cells in each batch that has any, in the order of codes."""
        code, number = np.unique(self.codes[:, 0], return_counts=True)
        return {self.levels[BATCH][c]: int(n) for c, n in zip(code, number, strict=True)}


def code_obs(obs: pd.DataFrame, schema: Schema, batch_key: str | None) -> ObsCodes:
    """Code all that the reference asks of obs; a column that is absent or incomplete is an error that names it.

    Raises
    ------
    BatchColumn, CovariateMissing, QueryError
        A column is absent, has missing values, occurs twice, or is not of numbers.
    """
    codes, levels, messages = batch_codes(obs, schema, batch_key)
    columns = [codes]
    for c in schema.categorical:
        none = np.zeros(len(obs), np.int64)
        columns.append(none if c.of else covariate_codes(obs, c.key, c.levels, levels, messages))
    combined, levels = combine(np.stack(columns, axis=1).astype(np.int32), levels, schema)
    return ObsCodes(
        combined,
        levels,
        continuous_covariates(obs, schema),
        size_factors(obs, schema),
        label_codes(obs, schema),
        tuple(messages),
    )


def _column(obs: pd.DataFrame, key: str) -> pd.Series[Any]:
    found = obs[key]
    if getattr(found, "ndim", 1) != 1:
        raise QueryError(
            f"obs has {found.shape[1]} columns called {key!r}. Rename or drop all but the one that is meant."
        )
    return found


def batch_codes(
    obs: pd.DataFrame, schema: Schema, batch_key: str | None
) -> tuple[np.ndarray, dict[str, tuple[str, ...]], list[str]]:
    """Code of each cell's batch, the levels that codes point into, and what to tell the user."""
    levels = dict(schema.levels)
    if batch_key is not None:
        if batch_key not in obs:
            raise BatchColumn(
                f"The query has no column obs[{batch_key!r}]; it has {', '.join(map(str, obs.columns)) or 'none'}. "
                "Name one of them as the batch, or leave the batch out to treat the query as one new batch."
            )
        said: list[str] = []
        return _codes(_column(obs, batch_key), BATCH, levels, f"obs[{batch_key!r}]", said), levels, said
    name, i = "query", 2
    while name in schema.batches:
        name, i = f"query_{i}", i + 1
    levels[BATCH] = (*schema.batches, name)
    message = f"No batch column was named: the whole query is one new batch, {name!r}."
    if schema.batch_key in obs:
        message += (
            f" The query has obs[{schema.batch_key!r}], the reference's batch column; name it if it is the batch."
        )
    return np.full(len(obs), len(schema.batches), np.int64), levels, [message]


def covariate_codes(
    obs: pd.DataFrame, key: str, known: tuple[str, ...], levels: dict[str, tuple[str, ...]], said: list[str]
) -> np.ndarray:
    """Code of each cell's level of an extra covariate; new levels are added to `levels`."""
    if key not in obs:
        raise CovariateMissing(
            f"The reference was trained with the covariate {key!r}, and the query has no such column. Add obs[{key!r}]; "
            f"the reference knows {', '.join(known[:12])}. A level that it does not know is extended like a batch."
        )
    return _codes(_column(obs, key), covariate_name(key), levels, f"obs[{key!r}]", said)


def _codes(
    column: pd.Series[Any], name: str, levels: dict[str, tuple[str, ...]], where: str, said: list[str]
) -> np.ndarray:
    """Codes of a column's names, (n,) int64; new names are added to `levels`, what was mended is added to `said`."""
    known = levels[name]
    plain = np.array([level_name(v) for v in column.tolist()], dtype=object)
    names = np.array([v if v in known else v.strip() for v in plain.tolist()], dtype=object)
    missing = np.asarray(column.isna()) | np.array([v in MISSING and v not in known for v in names.tolist()], bool)
    if missing.any():
        first = ", ".join(map(str, column.index[missing][:FEW]))
        error = BatchColumn if name == BATCH else CovariateMissing
        text = sorted({repr(v) for v in plain[missing & ~np.asarray(column.isna())].tolist()})
        found = f"written as {', '.join(text)}" if text else "NaN"
        raise error(
            f"{where} is missing ({found}) for {int(missing.sum())} cells, e.g. {first}. Fill it in or drop the cells; give a real name "
            "that reads so another spelling."
        )
    if (names != plain).any():
        said.append(f"Blanks around the names in {where} were removed, e.g. {plain[names != plain][0]!r}.")
    levels[name] = (*known, *sorted(set(names.tolist()) - set(known)))
    position = {level: i for i, level in enumerate(levels[name])}
    return np.array([position[v] for v in names.tolist()], np.int64)


def combine(
    codes: np.ndarray, levels: Mapping[str, tuple[str, ...]], schema: Schema
) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """Codes (n, 1 + c) in which each combination of covariates follows from these, and the levels with its new ones.

    A combination is named as scArches names it: its levels joined by ``"_"``, whatever they hold.
    """
    found, order = dict(levels), list(schema.levels)
    out = codes.copy()
    for c in schema.categorical:
        if not c.of:
            continue
        parts = codes[:, [order.index(name) for name in c.of]]
        used, where = np.unique(parts, axis=0, return_inverse=True)
        names = ["_".join(found[name][code] for name, code in zip(c.of, row, strict=True)) for row in used]
        own = covariate_name(c.key)
        found[own] = (*c.levels, *sorted(set(names) - set(c.levels)))
        position = {level: i for i, level in enumerate(found[own])}
        lookup = np.array([position[name] for name in names], np.int32)
        out[:, order.index(own)] = lookup[where.ravel()]
    return out, found


def continuous_covariates(obs: pd.DataFrame, schema: Schema) -> np.ndarray:
    """Continuous covariates, (n, k) float32."""
    out = np.zeros((len(obs), len(schema.continuous)), np.float32)
    for i, key in enumerate(schema.continuous):
        if key not in obs:
            raise CovariateMissing(
                f"The reference was trained with the continuous covariate {key!r}, and the query has no such column. "
                f"Add obs[{key!r}] in the reference's units."
            )
        out[:, i] = _numbers(_column(obs, key), key)
    return out


def _numbers(column: pd.Series[Any], key: str) -> np.ndarray:
    try:
        values = np.array(column, dtype=np.float32)  # a copy: pandas lends read-only arrays
    except (TypeError, ValueError) as error:
        raise QueryError(f"obs[{key!r}] must hold numbers: {error}. Convert it (pandas.to_numeric).") from error
    if not np.isfinite(values).all():
        first = ", ".join(map(str, column.index[~np.isfinite(values)][:FEW]))
        raise QueryError(f"obs[{key!r}] has NaN or infinite values, e.g. for {first}. Fill them in or drop the cells.")
    return values


def size_factors(obs: pd.DataFrame, schema: Schema) -> np.ndarray | None:
    """Size factors, (n,) float32, where the reference was trained with them."""
    key = schema.size_factor_key
    if key is None:
        return None
    if key not in obs:
        raise CovariateMissing(
            f"The reference was trained with size factors in obs[{key!r}], and the query has no such column. Add it, computed as "
            "for the reference."
        )
    values = _numbers(_column(obs, key), key)
    if (values <= 0).any():
        raise QueryError(
            f"obs[{key!r}] holds size factors, which must be positive; {int((values <= 0).sum())} are not. Compute them again, or "
            "drop these cells."
        )
    return values


def label_codes(obs: pd.DataFrame, schema: Schema) -> np.ndarray | None:
    """Codes of the query's own labels where it has the reference's label column, -1 for labels unknown to it."""
    if schema.labels_key is None or schema.labels_key not in obs:
        return None
    position = {label: i for i, label in enumerate(schema.labels)}
    values = [position.get(level_name(v), -1) for v in _column(obs, schema.labels_key).tolist()]
    return np.array(values, np.int32)

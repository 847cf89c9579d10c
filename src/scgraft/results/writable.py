"""An AnnData as a file, whatever is in it: what no file can hold is changed or left out, and said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.files.atomic import is_of_the_system
from scgraft.files.write_h5 import write_h5ad

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

RESERVED = "_index"  # anndata keeps the names of the rows under it
GROUPS = ("obsm", "varm", "obsp", "varp", "uns")


def write_annotated(adata: AnnData, path: Path, *, counts: bool = True) -> tuple[str, ...]:
    """Write an AnnData (which turns its columns of text into categories, as anndata does).

    It is tried as it is. Where that fails, or a name has a slash (anndata 0.12 makes a group of it, 0.13 refuses), text of pandas'
    own kinds is written as plain text, columns with such a name or a reserved one get another, and every part that still cannot be
    written is left out.

    Parameters
    ----------
    adata
        Anything that AnnData holds.
    path
        ``.h5ad`` file to write.
    counts
        Write X, the layers and raw.

    Returns
    -------
    tuple of str
        What was changed or left out, one sentence part each; () where everything was written as it is.
    """
    if counts and all(as_key(name) == name for name in _names(adata)):
        try:
            write_h5ad(adata, path)
            return ()
        except Exception as error:  # whatever it is, the parts are tried one by one
            if is_of_the_system(error):
                raise
            path.unlink(missing_ok=True)
    said: list[str] = []
    bare = _bare(adata, said, counts=counts)
    try:
        write_h5ad(bare, path)
    except Exception as error:  # the other files hold the results
        if is_of_the_system(error):
            raise
        path.unlink(missing_ok=True)
        return (*said, f"it could not be written ({type(error).__name__}: {error})")
    return tuple(said)


def as_key(name: str) -> str:
    """A name as a key of a file, where a slash would be a folder."""
    return name.replace("/", "_")


def _free(name: str, taken: set[str]) -> str:
    """A name that no other has."""
    return name if name not in taken else _free(f"{name}_", taken)


def _named(name: object, taken: set[str], place: str, said: list[str]) -> str:
    """A name as it is, or as one without a slash that none of those `taken` is; that is added to `said`."""
    if "/" not in str(name):
        return str(name)
    new = _free(as_key(str(name)), taken)
    said.append(f"{place}[{name!r}] is called {new!r}, as no name in a file has a slash")
    return new


def _keyed(value: Any) -> Any:
    """Nested tables with keys that a file can have."""
    if not isinstance(value, Mapping):
        return value
    out: dict[Any, Any] = {}
    for key, inner in value.items():
        new = as_key(key) if isinstance(key, str) else key
        out[_free(new, {*out, *value} - {key}) if new != key else key] = _keyed(inner)
    return out


def _names(adata: AnnData) -> Iterator[str]:
    """Names of columns, tables and matrices."""
    yield from (str(name) for frame in (adata.obs, adata.var) for name in frame.columns)
    for group in (*GROUPS, "layers"):
        yield from (str(key) for key in _keys(dict(getattr(adata, group))) if key is not None)


def _bare(adata: AnnData, said: list[str], *, counts: bool) -> AnnData:
    """An AnnData of the parts that can be written; what became of the others is added to `said`."""
    import anndata

    obs, var = _plain(adata.obs, "obs", said), _plain(adata.var, "var", said)
    out = anndata.AnnData(obs=obs, var=var, shape=adata.shape)
    for group in GROUPS:
        kept = getattr(out, group)
        for key, value in getattr(adata, group).items():
            name = _named(key, {*kept, *map(str, getattr(adata, group))}, group, said)
            value = _plain(value, f"{group}[{key!r}]", said) if hasattr(value, "columns") else value
            if isinstance(value, Mapping) and not all(map(_fits_name, _keys(value))):
                value = _keyed(value)
                said.append(f"{group}[{key!r}] has names with slashes, which are written with '_' instead")
            if _fits(value):
                kept[name] = value
            else:
                said.append(f"{group}[{key!r}] ({type(value).__name__}) was left out")
    if not counts:
        return out
    if adata.X is not None:
        out.X = adata.X
    for key, value in adata.layers.items():
        if key is not None:  # anndata 0.13 lists X as the layer None
            out.layers[_named(key, {*out.layers, *map(str, adata.layers)}, "layers", said)] = value
    if adata.raw is not None:
        names = _plain(adata.raw.var, "raw.var", said)
        out.raw = anndata.AnnData(adata.raw.X, obs=obs[[]], var=names)
    return out


def _plain(frame: pd.DataFrame, place: str, said: list[str]) -> pd.DataFrame:
    """A table as every reader knows it, its columns one by one."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for i, name in enumerate(frame.columns):
        new, column = _named(name, {*columns, *map(str, frame.columns)}, place, said), frame.iloc[:, i]
        if new == RESERVED:
            new = "index_"
            said.append(f"{place}[{name!r}] is called {new!r}, as its name is reserved")
        if new in columns:
            said.append(f"the second column {name!r} of {place} was left out")
            continue
        if not _fits(pd.DataFrame({"x": column})):
            column = _as_text(column)
            said.append(f"{place}[{name!r}] is written as plain text")
        columns[new] = column
    out = pd.DataFrame(columns, index=frame.index.astype(str))
    if out.index.name in (RESERVED, *columns):
        out.index.name = None
    return out


def _as_text(column: pd.Series[Any]) -> Any:
    import pandas as pd

    missing = np.asarray(column.isna())
    text = np.array([None if gone else str(v) for v, gone in zip(column.tolist(), missing, strict=True)], dtype=object)
    return pd.Categorical(text)


def _fits(value: Any) -> bool:
    """Whether anndata can write a value: tried on a file in memory; plain arrays are known to fit."""
    import h5py
    from anndata.io import write_elem

    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return True
    try:
        with h5py.File("memory", "w", driver="core", backing_store=False) as file:
            write_elem(file, "x", value)
            return all(_fits_name(key) for key in _keys(value))
    except Exception:  # noqa: BLE001 a value that cannot be written says so in many ways
        return False


def _keys(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)


def _fits_name(key: Any) -> bool:
    return isinstance(key, str) and "/" not in key

"""AnnData files that hold something in an encoding that nobody here knows: all else of them is read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scgraft.files.structure import KNOWN, PARTS, encoding_of
from scgraft.files.text import visible

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

LOG = logging.getLogger(__name__)
TABLES = ("obs", "var")


def unknown_places(file: Any) -> tuple[str, ...]:
    """Where a file or store holds an encoding that is not known; () for nearly every file."""
    found: list[str] = []
    for name in file:
        _walk(file[name], str(name), found)
    return tuple(found)


def read_known(file: Any) -> AnnData:
    """An AnnData without what is in an unknown encoding, which is said in a warning.

    Parameters
    ----------
    file
        An .h5ad file or a zarr store, open; its structure was checked.
    """
    import anndata

    parts: dict[str, Any] = {}
    for name in PARTS:
        if name in file and encoding_of(file[name]) in KNOWN - {"null"}:
            parts[name] = read_table(file[name]) if name in TABLES else _read(file[name])
    LOG.warning(
        "Left out, as this version of anndata does not know how it is encoded: %s.", ", ".join(unknown_places(file))
    )
    return anndata.AnnData(**parts)


def read_table(group: Any) -> pd.DataFrame:
    """A table on disk without its columns of an unknown encoding."""
    import pandas as pd
    from anndata.io import read_elem

    order = [str(name) for name in group.attrs.get("column-order", ())]
    if all(encoding_of(group[name]) in KNOWN for name in order):
        return read_elem(group)
    index = read_elem(group[group.attrs["_index"]])
    columns = {name: read_elem(group[name]) for name in order if encoding_of(group[name]) in KNOWN}
    return pd.DataFrame(columns, index=pd.Index(index).astype(str))


def _walk(item: Any, at: str, found: list[str]) -> None:
    encoding = encoding_of(item)
    if encoding not in KNOWN:
        found.append(visible(at))
    elif hasattr(item, "keys") and encoding in ("", "anndata", "dataframe", "dict", "mapping", "raw"):
        for name in item:
            _walk(item[name], f"{at}/{name}", found)


def _read(item: Any) -> Any:
    from anndata.io import read_elem

    if not hasattr(item, "keys") or encoding_of(item) not in ("", "dict", "mapping", "raw"):
        return read_elem(item)
    known = {str(name): item[name] for name in item if encoding_of(item[name]) in KNOWN}
    return {
        name: read_table(inner) if encoding_of(inner) == "dataframe" else _read(inner) for name, inner in known.items()
    }

"""Graft <-> folder: graft.safetensors (the new columns) and graft.json (everything else), checked byte by byte.

Format 1 of graft.json::

    {"format": 1, "scgraft": "0.1.0", "base": {...}, "levels": {"batch": [...]}, "record": {...},
     "sha256": hash of graft.safetensors, "checksum": hash of this document without "checksum"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scgraft._version import __version__
from scgraft.errors import BadOption, CorruptGraft, FormatTooNew
from scgraft.files import schema
from scgraft.files.atomic import new_folder
from scgraft.files.text import visible
from scgraft.graft.levels import check_base
from scgraft.values.graft import GRAFT_FORMAT, FitConfig, FitRecord, Graft
from scgraft.values.reference import BaseId, Reference

ROWS, DOCUMENT = "graft.safetensors", "graft.json"


def save_graft(graft: Graft, folder: str | Path, *, force: bool = False) -> Path:
    """Save a graft: a few kilobytes, without any count.

    Parameters
    ----------
    graft
        The graft.
    folder
        Where to write; it appears when it is complete.
    force
        Replace a folder that exists.

    Raises
    ------
    OutputExists
        The folder exists and `force` is off.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> saved = scgraft.save_graft(graft, folder.parent / "graft")
    >>> sorted(path.name for path in saved.iterdir())
    ['graft.json', 'graft.safetensors']
    """
    from safetensors.numpy import save

    folder = Path(folder)
    with new_folder(folder, force=force) as new:
        rows = save({name: np.ascontiguousarray(row) for name, row in graft.rows.items()})
        document: dict[str, Any] = {
            "format": graft.format,
            "scgraft": __version__,
            # The cells of a folder; where the commit tells, a graft is as every version of the format wrote it.
            "base": {name: value for name, value in asdict(graft.base).items() if name != "cells" or value},
            "levels": {name: list(levels) for name, levels in graft.levels.items()},
            "record": asdict(graft.record),
            "sha256": hashlib.sha256(rows).hexdigest(),
        }
        document["checksum"] = _checksum(document)
        (new / ROWS).write_bytes(rows)
        (new / DOCUMENT).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return folder


def load_graft(folder: str | Path, *, reference: Reference | None = None) -> Graft:
    """Load a saved graft.

    Parameters
    ----------
    folder
        Written by :func:`save_graft`.
    reference
        If given, the graft must have been made for it.

    Raises
    ------
    CorruptGraft
        A file is missing, cut or changed.
    FormatTooNew
        Written by a newer scgraft.
    BaseMismatch
        Made for another reference.
    """
    folder = Path(folder)
    for name in (ROWS, DOCUMENT):
        if not (folder / name).is_file():
            raise CorruptGraft(f"{folder} holds no {name}; a graft is a folder with {ROWS} and {DOCUMENT}.")
    document = _read_document(folder)
    data = (folder / ROWS).read_bytes()
    if hashlib.sha256(data).hexdigest() != document["sha256"]:
        raise CorruptGraft(
            f"{folder / ROWS} is cut or was changed: its hash is not the one in {DOCUMENT}. Copy it again."
        )
    graft = _graft(folder, document, data)
    if reference is not None:
        check_base(reference, graft)
    return graft


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / DOCUMENT
    try:
        document = schema.parse(path.read_bytes(), schema.record({}, more=True), DOCUMENT)
    except schema.Unfit as error:
        raise CorruptGraft(f"{path} is cut or was changed: {error}. Copy it again.") from error
    version = document.get("format")
    if isinstance(version, int) and not isinstance(version, bool) and version > GRAFT_FORMAT:
        raise FormatTooNew(
            f"{folder} has graft format {version}, written by scgraft {document.get('scgraft')}; this is scgraft "
            f"{__version__}, which reads formats up to {GRAFT_FORMAT}. Install a newer scgraft."
        )
    expected = {"format", "scgraft", "base", "levels", "record", "sha256", "checksum"}
    try:
        whole = set(document) == expected and document["checksum"] == _checksum(document)
    except ValueError:  # NaN, which JSON has not, and Python reads
        whole = False
    if not whole:
        raise CorruptGraft(f"{path} is cut or was changed: its checksum does not fit its content. Copy it again.")
    return document


def _written() -> schema.Check:
    """What graft.json holds: names of levels are told apart, everything else is a field of the values that it becomes."""
    return schema.record(
        {
            "format": schema.whole,
            "scgraft": schema.text,
            "base": schema.of(BaseId),
            "levels": schema.table(schema.distinct),
            "record": schema.of(FitRecord),
            "sha256": schema.text,
            "checksum": schema.text,
        }
    )


def _checksum(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _graft(folder: Path, document: dict[str, Any], data: bytes) -> Graft:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        _written()(document, DOCUMENT)
        record = dict(document["record"])
        record["config"] = FitConfig(**record["config"])
        record["loss"] = tuple((int(step), float(value)) for step, value in record["loss"])
        record["reference_unchanged"] = tuple(record["reference_unchanged"])
        rows = load(data)
        for name, row in rows.items():
            schema.text(name, "the name of a row")
            if row.dtype != np.float32 or not np.isfinite(row).all():
                raise ValueError(f"the row {visible(name)} is not of finite float32 numbers")
        return Graft(
            base=BaseId(**document["base"]),
            levels={name: tuple(levels) for name, levels in document["levels"].items()},
            rows=rows,
            record=FitRecord(**record),
            format=document["format"],
        )
    except (TypeError, KeyError, ValueError, BadOption, SafetensorError) as error:
        raise CorruptGraft(f"{folder} does not hold a graft as scgraft writes it: {error}") from error

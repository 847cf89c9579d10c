"""Reads model.pt and attr.pkl through an allow-list; nothing that a file says is executed.

Tensors are taken from the zip's storages as numpy arrays, the rest from its pickle by a machine of our own
(:mod:`scgraft.reference.machine`), all within a budget of memory and time that goes with the size of the file.

Source of the format: torch.save's zip layout (``data.pkl`` beside ``data/<key>`` storages).
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile, ScgraftError
from scgraft.files.budget import Budget
from scgraft.files.kinds import check_pointer
from scgraft.reference.machine import Machine, load
from scgraft.reference.stand_ins import StorageType
from scgraft.reference.storage_file import read_storage

MAX_PICKLE = 256 << 20  # bytes; the largest of scvi-tools (labels of some million cells) stay below 50 MB
# Bytes of one tensor; chosen by eye: it is stored as it is, so the file itself bounds it before this does.
MAX_STORAGE = 64 << 30
MAX_COMPRESSED = 256 << 20  # bytes of an entry once unpacked: torch does not compress, so nothing real is that large
ENCRYPTED = 1  # the bit of an entry's flags that says so
_DAMAGE = (
    EOFError, KeyError, IndexError, ValueError, TypeError, AttributeError, RecursionError, MemoryError, OverflowError,
    struct.error, zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, OSError, RuntimeError,
)  # fmt: skip


def _load(
    data: bytes,
    name: str,
    budget: Budget,
    storage: Callable[[Any], np.ndarray] | None = None,
    nested: Callable[[Any], np.ndarray] | None = None,
) -> dict[str, Any]:
    try:
        value = load(Machine(data, name, budget, storage, nested))
    except ScgraftError:
        raise
    except _DAMAGE as error:
        raise CorruptFile(
            f"{name} is damaged or not of the expected format: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    if not isinstance(value, dict):
        raise CorruptFile(f"{name} holds a {type(value).__name__}; a dictionary was expected.")
    return value


def _head(path: Path) -> bytes:
    try:
        check_pointer(path)
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise CorruptFile(f"{path.name} cannot be read: {error}.") from error


def read_torch_file(path: Path, budget: Budget | None = None) -> dict[str, Any]:
    """Read a file of torch.save (zip format) to plain Python values and numpy arrays.

    Parameters
    ----------
    path
        For example ``model.pt``.
    budget
        What is left to a reference whose file this is; None gives the file its own.

    Returns
    -------
    dict
        Tensors as arrays with memory of their own; pandas objects as inert placeholders.

    Raises
    ------
    UnsafeFile
        The file names a global that is not on the allow-list. Nothing was executed.
    CorruptFile
        Cut, changed, a zip bomb, or not such a file.
    """
    if not _head(path).startswith(b"PK"):
        raise CorruptFile(
            f"{path.name} is not a zip file as torch.save writes it. If it is a model of scvi-tools before 0.8 or in "
            "torch's old format, save it again with a newer version."
        )
    try:
        budget = budget or Budget(path.stat().st_size, path.name)
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.name, budget)
    except ScgraftError:
        raise
    except _DAMAGE as error:
        raise CorruptFile(f"{path.name} is damaged: {type(error).__name__}: {error}") from error


def _read_archive(archive: zipfile.ZipFile, name: str, budget: Budget) -> dict[str, Any]:
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [entry for entry in entries if entry.endswith("/data.pkl") and entry.count("/") == 1]
    if len(pickles) != 1:
        raise CorruptFile(f"{name} holds {len(pickles)} data.pkl; a file of torch.save holds one.")
    for info in entries.values():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & ENCRYPTED:
            raise CorruptFile(f"{name} is compressed or encrypted in a way that torch.save does not use.")
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > MAX_COMPRESSED:
            raise CorruptFile(
                f"{name} holds a compressed entry of {info.file_size} bytes; torch.save compresses nothing."
            )
    folder = pickles[0].removesuffix("data.pkl")
    if entries[pickles[0]].file_size > MAX_PICKLE:
        raise CorruptFile(f"{name} holds a pickle of {entries[pickles[0]].file_size} bytes, more than {MAX_PICKLE}.")
    order = f"{folder}byteorder"
    if order in entries and archive.open(order).read(16).strip() != b"little":
        raise CorruptFile(f"{name} was saved on a big-endian machine, which is not supported.")
    cache: dict[str, np.ndarray] = {}

    def storage(pid: Any) -> np.ndarray:
        kind, type_, key, _, length = pid
        if kind != "storage" or not isinstance(type_, StorageType) or not isinstance(key, str) or not key.isalnum():
            raise ValueError("a persistent id that is not a storage")
        if key not in cache:
            entry = entries[f"{folder}data/{key}"]
            width = 2 if type_.code == "bf16" else np.dtype(type_.code).itemsize
            if entry.file_size != int(length) * width or entry.file_size > MAX_STORAGE:
                raise ValueError(f"storage {key} has {entry.file_size} bytes, {length} elements were declared")
            budget.spend(entry.file_size)
            raw = archive.read(entry)
            if type_.code == "bf16":
                budget.spend(2 * entry.file_size)
                cache[key] = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                cache[key] = np.frombuffer(raw, dtype=type_.code)
        return cache[key]

    budget.spend(entries[pickles[0]].file_size)
    return _load(archive.read(pickles[0]), name, budget, storage)


def read_pickle(path: Path, budget: Budget | None = None) -> dict[str, Any]:
    """Read a plain pickle (``attr.pkl`` of scvi-tools before 0.15, and of scArches) through the same allow-list.

    The tensors in it are arrays.

    Raises
    ------
    UnsafeFile, CorruptFile
        As :func:`read_torch_file`.
    """
    _head(path)
    if path.stat().st_size > MAX_PICKLE:
        raise CorruptFile(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_PICKLE}.")
    paid = budget or Budget(path.stat().st_size, path.name)
    return _load(path.read_bytes(), path.name, paid, nested=lambda data: read_storage(data, path.name, paid))

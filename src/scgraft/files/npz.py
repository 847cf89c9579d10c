"""Arrays of an .npz file, read against what they must be: no pickle, and no more memory than the file declares honestly."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget
from scgraft.files.structure import MAX_RATIO, SMALL
from scgraft.files.text import visible


@dataclass(frozen=True)
class Array:
    """What one array must be: its kinds of numpy's ``dtype.kind``, its dimensions, and whether NaN and infinite may stand in it."""

    kinds: str
    dimensions: int | tuple[int, ...]
    finite: bool = True

    def fits(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Whether an array of this type and shape may stand here."""
        allowed = (self.dimensions,) if isinstance(self.dimensions, int) else self.dimensions
        # scipy multiplies neither half nor extended precision.
        usual = dtype.kind != "f" or dtype.itemsize in (4, 8)
        return dtype.kind in self.kinds and usual and len(shape) in allowed


def read_npz(
    path: Path, arrays: Mapping[str, Array], *, others: Array | None = None, budget: Budget | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a file that holds exactly these, or also such as are like `others`; all within a budget (None: the file's own).

    Raises
    ------
    CorruptFile
        Cut, changed, a zip bomb, or an array of another kind; the text names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            strange = entries.keys() - arrays.keys() if others is None else set()
            if arrays.keys() - entries.keys() or strange or len(entries) != len(archive.infolist()):
                raise ValueError(f"it holds {sorted(entries)[:8]}; {sorted(arrays)} were expected")
            packed = sum(info.compress_size for info in entries.values())
            budget = budget or Budget(0, "it", packed=packed)
            budget.spend(sum(info.file_size for info in entries.values()), "it")
            return {name: _read(archive, info, name, arrays.get(name, others)) for name, info in entries.items()}
    except Exception as error:
        raise CorruptFile(f"{visible(str(path))} is cut or damaged: {visible(str(error))}.") from error


def read_one(path: Path, name: str, wanted: Array) -> np.ndarray:
    """One array of a file, whatever else it holds; raises as :func:`read_npz`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, archive.getinfo(f"{name}.npy"), name, wanted)
    except Exception as error:
        raise CorruptFile(f"{visible(str(path))} is cut or damaged: {visible(str(error))}.") from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, wanted: Array | None) -> np.ndarray:
    assert wanted is not None
    if info.file_size > SMALL and info.file_size > MAX_RATIO * info.compress_size:
        raise ValueError(f"{name} declares {info.file_size} bytes, of which {info.compress_size} are stored")
    with archive.open(info) as file:
        shape, dtype = _header(file)
        if not wanted.fits(dtype, shape):
            raise ValueError(f"{name} has the type {dtype} and the shape {shape}")
        if math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{name} declares the shape {shape}, but has {info.file_size} bytes")
    with archive.open(info) as file:
        value = np.lib.format.read_array(file, allow_pickle=False)
    if wanted.finite and dtype.kind == "f" and not np.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinite numbers")
    if dtype.kind == "U" and dtype.itemsize and value.size:
        points = np.ascontiguousarray(value).view(np.dtype("u4").newbyteorder(dtype.byteorder))
        if points.max() > sys.maxunicode:
            raise ValueError(f"{name} holds numbers that are no characters")
    # Nor what another kind of machine wrote, before it is turned.
    return np.asarray(value, dtype=value.dtype.newbyteorder("="))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"an array of the version {version}, which scgraft never writes")
    shape, _, dtype = read[version](file)
    return tuple(int(n) for n in shape), dtype

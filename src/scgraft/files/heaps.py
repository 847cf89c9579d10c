"""Heaps of an HDF5 file, where it keeps its texts: one in which libhdf5 would go round for ever is refused before it is read.

A global heap is a row of objects, each with its size before it (HDF5 File Format Specification, III.E). libhdf5 steps from one
to the next by that size, and does not look whether the step is none, or backwards.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.errors import CorruptFile

if TYPE_CHECKING:
    import h5py

# A megabyte is looked through in two milliseconds.
LARGE = 1 << 20
# A piece below this is looked through in less time than it takes to leave it out.
PIECE = 1 << 14
# Signature, version 1, and three bytes that are zero.
SIGNATURE = b"GCOL\x01\x00\x00\x00"
# Index, number of references, reserved, size: 16 bytes, with the eight-byte lengths that h5py writes.
OBJECT = struct.Struct("<HHIQ")
# An object of no size has twelve zeros in a row, and one that leads back a size near 2**64; few other heaps hold either.
SUSPICIOUS = (b"\0" * 12, b"\xff" * 4)


def check_heaps(path: Path, file: h5py.File) -> None:
    """Refuse a file with a heap whose objects do not lead to its end.

    Parameters
    ----------
    path, file
        The file, and the same one opened, its links checked. Where the numbers of its large datasets lie there is no heap:
        that is not looked through.

    Raises
    ------
    CorruptFile
        With the position in the file.
    """
    with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        for stop, further in [*_large_pieces(file), (len(data), len(data))]:
            at = data.find(SIGNATURE, start, stop)
            while at >= 0:
                end = at + int.from_bytes(data[at + 8 : at + 16], "little")
                if end <= len(data) and any(data.find(mark, at + 16, end) >= 0 for mark in SUSPICIOUS):
                    _walk(data, at + 16, end)
                at = data.find(SIGNATURE, at + 8, stop)
            start = max(start, further)


def _large_pieces(file: h5py.File) -> list[tuple[int, int]]:
    """Start and end of each large piece of the datasets' numbers, in the order of the file."""
    found: list[tuple[int, int]] = []

    def look(name: str, item: Any) -> None:
        if not hasattr(item.id, "get_offset") or item.id.get_storage_size() < LARGE:
            return
        if item.chunks is not None:
            item.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
        elif (start := item.id.get_offset()) is not None:
            found.append((start, start + item.id.get_storage_size()))

    file.visititems(look)
    return sorted(piece for piece in found if piece[1] - piece[0] >= PIECE)


def _walk(data: mmap.mmap, at: int, end: int) -> None:
    while at + OBJECT.size <= end:
        index, _, _, size = OBJECT.unpack_from(data, at)
        step = OBJECT.size + -(-size // 8) * 8 if index else size
        if not 0 < step <= end - at:
            raise CorruptFile(f"its heap of texts is damaged at byte {at}.")
        at += step

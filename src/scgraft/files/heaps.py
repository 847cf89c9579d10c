"""Heaps of an HDF5 file, where it keeps its texts: one in which libhdf5 would go round for ever is refused before it is read.

A global heap is a row of objects, each with its size before it (HDF5 File Format Specification, III.E). libhdf5 steps from one
to the next by that size, and does not look whether the step is none, or backwards.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from scgraft.errors import CorruptFile

# Signature, version 1, and three bytes that are zero.
SIGNATURE = b"GCOL\x01\x00\x00\x00"
# Index, number of references, reserved, size: 16 bytes, with the eight-byte lengths that h5py writes.
OBJECT = struct.Struct("<HHIQ")
# An object of no size has twelve zeros in a row, and one that leads back a size near 2**64; few other heaps hold either.
SUSPICIOUS = (b"\0" * 12, b"\xff" * 4)


def check_heaps(path: Path) -> None:
    """Refuse a file with a heap whose objects do not lead to its end.

    Raises
    ------
    CorruptFile
        With the position in the file.
    """
    if path.stat().st_size < len(SIGNATURE):
        return  # no HDF5 file, which is said when it is opened
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(SIGNATURE)
        while at >= 0:
            end = at + int.from_bytes(data[at + 8 : at + 16], "little")
            if end <= len(data) and any(data.find(mark, at + 16, end) >= 0 for mark in SUSPICIOUS):
                _walk(data, at + 16, end)
            at = data.find(SIGNATURE, at + 8)


def _walk(data: mmap.mmap, at: int, end: int) -> None:
    while at + OBJECT.size <= end:
        index, _, _, size = OBJECT.unpack_from(data, at)
        step = OBJECT.size + -(-size // 8) * 8 if index else size
        if not 0 < step <= end - at:
            raise CorruptFile(f"its heap of texts is damaged at byte {at}.")
        at += step

"""Counts of a file's cells over the reference's genes, kept on the disk as they were read and checked.

A file of cells is read twice: to learn from a sample, and to map. What costs is to unpack all of its genes. The first reading keeps
those of the reference, three bytes a count, and the second one takes them from there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from scgraft.errors import CannotWrite, CorruptFile
from scgraft.files.atomic import new_file
from scgraft.files.npz import Array, read_npz
from scgraft.query.places import joined

BYTES = 3  # for a count: two for its gene and one for its value, of which few are larger than a byte
LARGE = 255  # stands for a value that is no whole number below it
KEPT = {
    "lengths": Array("u", 1),
    "genes": Array("u", 1),
    "values": Array("u", 1),
    "large": Array("f", 1, finite=False),
}


@dataclass(frozen=True)
class KeptCounts:
    """A folder with counts of a file's cells over some genes, in files of as many cells each; some or all of them may be missing.

    Parameters
    ----------
    folder
        Where the files are; it is made when the first one is written.
    each
        Cells in a file, but for the last one: as many as are read at a time when they are written.
    """

    folder: Path
    each: int

    def has_room(self, size: float) -> bool:
        """Whether the disk has twice that many bytes free, so that the results fit beside them; True where it does not say."""
        there = next((path for path in (self.folder, *self.folder.parents) if path.exists()), None)
        try:
            return there is None or shutil.disk_usage(there).free > 2 * size
        except OSError:
            return True

    def write(self, rows: slice, counts: sparse.csr_matrix) -> bool:
        """Keep the counts of a run of cells that begins where a file does, (n, G) float32; False where the disk cannot take them."""
        path = self._path(rows.start // self.each)
        if path.exists():
            return True
        whole = (counts.data >= 0) & (counts.data < LARGE) & (counts.data == np.rint(counts.data))
        values = np.full(len(counts.data), LARGE, np.uint8)
        np.copyto(values, counts.data, where=whole, casting="unsafe")
        kind = np.uint16 if counts.shape[1] <= 1 << 16 else np.uint32
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(path, force=True) as new, new.open("wb") as handle:
                np.savez(
                    handle,
                    lengths=np.diff(counts.indptr).astype(np.uint32),
                    genes=counts.indices.astype(kind),
                    values=values,
                    large=counts.data[values == LARGE],
                )
        except (CannotWrite, OSError):
            return False
        return True

    def read(self, rows: slice, n_genes: int) -> sparse.csr_matrix | None:
        """The counts of a run of cells, (n, n_genes) float32, bit for bit as they were; None where a file of them is missing or damaged."""
        parts = []
        for i in range(rows.start // self.each, -(-rows.stop // self.each)):
            if not self._path(i).exists():
                return None
            try:
                part = _unpacked(read_npz(self._path(i), KEPT), n_genes)
            except CorruptFile:
                return None
            some = slice(max(rows.start - i * self.each, 0), min(rows.stop - i * self.each, self.each))
            if part is None or part.shape[0] < some.stop:
                return None
            parts.append(part if part.shape[0] == some.stop - some.start else part[some])
        return joined(parts) if parts else None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def _unpacked(arrays: dict[str, np.ndarray], n_genes: int) -> sparse.csr_matrix | None:
    lengths, genes, values, large = (arrays[name] for name in KEPT)
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if not len(genes) == len(values) == ends[-1] or len(genes) and genes.max() >= n_genes:
        return None
    data, at = values.astype(np.float32), np.flatnonzero(values == LARGE)
    if len(at) != len(large):
        return None
    data[at] = large
    return sparse.csr_matrix((data, genes.astype(np.int32), ends.astype(np.int32)), shape=(len(lengths), n_genes))

"""HDF5 files are written so that a full disk is an error, and not the end of the process.

A write that failed leaves libhdf5 (1.14) in a state in which nothing of the file can be closed, and the process crashes at its
end. So it is not told: the file in Python below it remembers the failure, takes what follows, and raises when all is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

GROUPS = ("layers", "obsm", "varm", "obsp", "varp", "uns")


class _Disk:
    """What libhdf5 writes to and reads from (h5py's driver "fileobj"): no call of it fails."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        try:
            done = 0
            while self.error is None and done < len(data):
                done += self._file.write(data[done:])
        except OSError as error:
            self.error = error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def readinto(self, data: memoryview) -> int:
        view = memoryview(data).cast("B")  # that of h5py 3.10 takes no slice
        found = self._file.readinto(view) or 0
        view[found:] = bytes(len(view) - found)
        return len(view)

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is kept back here."""


@contextmanager
def writing_h5(path: Path, mode: str = "w") -> Iterator[h5py.File]:
    """An HDF5 file to write (`mode` "w" or "r+").

    Raises
    ------
    OSError
        Not all of it could be written; told at the end of the block.
    """
    import h5py

    with FileIO(path, "w+" if mode == "w" else mode) as raw:
        disk = _Disk(raw)
        with h5py.File(disk, mode) as file:
            yield file
        if disk.error is not None:
            raise disk.error


def write_h5ad(adata: AnnData, path: Path, *, compression: str | None = None) -> None:
    """Write cells as ``AnnData.write_h5ad`` does, which turns columns of text into categories."""
    from anndata.io import write_elem

    if adata.isbacked:
        adata.write_h5ad(path, compression=compression)  # type: ignore[arg-type]
        return
    adata.strings_to_categoricals()
    parts = {"X": adata.X, "raw": adata.raw, "obs": adata.obs, "var": adata.var}
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    for group in GROUPS:  # anndata 0.13 lists X as the layer None
        parts[group] = {name: value for name, value in getattr(adata, group).items() if name is not None}
    options = {} if compression is None else {"compression": compression}
    with writing_h5(path) as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        for name, value in parts.items():
            if value is not None:
                write_elem(file, name, value, dataset_kwargs=options)

"""Everything of an HDF5 file that libhdf5 has to interpret is read once: links, attributes, texts, indices of chunks.

libhdf5 trusts the numbers in a file's headers, and a damaged one can end the process that reads it. So this is done first in a
process of its own (:mod:`scgraft.files.trial`), which starts here and answers with a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from scgraft.errors import CorruptFile, ScgraftError
from scgraft.files.heaps import check_heaps
from scgraft.files.links import check_links
from scgraft.files.structure import check_declared, datasets
from scgraft.files.text import visible

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")
READY = "ready"
# Numbers below are read whole; of larger ones the index of their chunks and both ends, for numbers themselves mislead nobody.
WHOLE = 1 << 20  # bytes
OBJECT = 50  # bytes of a text besides its characters
STEP = 1 << 16  # texts read at a time
# Filters whose code looks where it writes; the others (nbit, scale-offset, those of plugins) take sizes from the file.
BOUNDED = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf (HDF5 registered filters)


def walk(path: Path) -> int:
    """Read through a file, and keep nothing but the number of bytes that its texts take in memory.

    Raises
    ------
    UnsafeFile
        Something leads out of the file (:func:`scgraft.files.links.check_links`).
    CorruptFile
        Its links, or its heaps of texts, lead nowhere or round in a circle.
    OSError
        It is not an HDF5 file.
    """
    import h5py

    with h5py.File(path, "r") as file:
        check_links(file)
        check_heaps(path, file)
        _read(file)
        found: dict[int, int] = {}
        file.visititems(lambda name, item: found.update({_address(item): _read(item)}))
        return sum(found[_address(item)] for item in datasets(file))


def _address(item: h5py.Group | h5py.Dataset | h5py.Datatype) -> int:
    from h5py import h5o

    return int(h5o.get_info(item.id).addr)


def _read(item: h5py.Group | h5py.Dataset | h5py.Datatype) -> int:
    """Attributes and content of one object, and the bytes of its texts; what cannot be read is told by whoever needs it."""
    import h5py

    for name in _or_nothing(lambda: list(item.attrs)) or ():
        _or_nothing(partial(item.attrs.get, name))
    if isinstance(item, h5py.Dataset):
        return _or_nothing(lambda: _content(item)) or 0
    return 0


def _or_nothing(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a place that is not used may be damaged
        return None


def _content(dataset: h5py.Dataset) -> int:
    check_declared(dataset, "")
    if not dataset.shape:
        value = dataset[()]
        return len(value) if isinstance(value, str | bytes) else _texts(np.asarray(value))
    made = dataset.id.get_create_plist()
    bounded = {made.get_filter(index)[0] for index in range(made.get_nfilters())} <= BOUNDED
    width = dataset.dtype.itemsize * max(1, dataset.size // max(1, dataset.shape[0]))
    step = max(1, min(STEP, 16 * WHOLE // max(1, width)))
    starts = range(0, dataset.shape[0], step)
    if dataset.dtype.kind in "iufbSc" and bounded and dataset.size * dataset.dtype.itemsize > WHOLE:
        if dataset.chunks is not None:
            dataset.id.chunk_iter(lambda chunk: None)
        starts, step = range(0, dataset.shape[0], max(1, dataset.shape[0] - 1)), 1
    return sum(_texts(np.asarray(dataset[start : start + step])) for start in starts)


def _texts(values: np.ndarray) -> int:
    """Bytes of what stands outside of an array that holds pointers to it: texts, and rows of any length."""
    if values.dtype.names:
        return sum(_texts(values[name]) for name in values.dtype.names)
    if values.dtype.kind != "O":
        return 0
    return sum(getattr(value, "nbytes", 0) or len(value) for value in values.ravel() if hasattr(value, "__len__")) + (
        OBJECT * values.size
    )


def main() -> None:
    """Walk through the file named on the command line, within its bytes of memory and seconds of the processor."""
    import h5py  # noqa: F401 - before the bounds

    path, memory, seconds = Path(os.fsdecode(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    print(READY, flush=True)
    _bound(memory, seconds)
    answer: dict[str, object] = {"error": "", "text": "", "texts": 0}
    try:
        answer["texts"] = walk(path)
    except ScgraftError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        answer = {"error": CorruptFile.__name__, "text": "reading it takes far more memory than its size explains."}
    except Exception as error:  # noqa: BLE001 - libhdf5's own words
        answer = {"error": CorruptFile.__name__, "text": f"{type(error).__name__}: {visible(str(error))}."}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # closing what is damaged can end the process too, but nothing more is to be said


def _bound(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: whoever started this looks at the clock
        return
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limits[resource.RLIMIT_AS] = used + memory
    except (OSError, ValueError):  # no /proc: macOS does not hold this limit
        pass
    for kind, limit in limits.items():
        try:
            hard = resource.getrlimit(kind)[1]  # a batch system may have set one that is lower
            resource.setrlimit(kind, (limit if hard < 0 else min(limit, hard), hard))
        except (OSError, ValueError):
            pass

"""Files of strangers are read first by a process of their own: what ends or keeps that one is said, and ends nothing else.

libhdf5 trusts what stands in a file's headers; three changed bytes can make it write where it may not (issue of the library, and
not to be mended from outside). The trial takes 0.15 seconds for a file of the usual size, once for as long as the file stays as
it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from scgraft.errors import CorruptFile, UnsafeFile
from scgraft.files.hashes import stamp
from scgraft.files.walk import READY, walk

# Of the processor: a file of 45 kB takes 0.01 seconds, one of 100,000 names of cells 0.2.
SECONDS, BYTES_PER_SECOND = 6, 10 << 20
# How much longer than the processor's time it may take on a machine that does other things.
PATIENCE = 10
# Of memory beyond what the process needs to start: texts are held twice where one piece is all of the file.
ROOM, GROWTH = 512 << 20, 3
START = "import sys; sys.path[:0] = sys.argv[4:]; from scgraft.files.walk import main; main()"
ERRORS = {error.__name__: error for error in (CorruptFile, UnsafeFile)}


def check_trial(path: Path) -> int:
    """Refuse an HDF5 file that leads out of itself, or that ends or holds up the process that reads it.

    Returns
    -------
    int
        Bytes that all its texts take in memory.

    Raises
    ------
    UnsafeFile
        A link, a virtual dataset or a storage leads out of the file.
    CorruptFile
        It is no HDF5 file, or damaged so that libhdf5 crashes, goes round for ever, or fills the memory.
    OSError
        It is not there, or may not be read.
    """
    return _try(path.absolute(), stamp(path))


@lru_cache(maxsize=1024)  # errors are not kept
def _try(path: Path, stamp: tuple[int, ...]) -> int:
    size = path.stat().st_size
    seconds = SECONDS + size // BYTES_PER_SECOND
    answer = _run(path, ROOM + GROWTH * size, seconds)
    if answer is None:
        return walk(path)  # no process can be started here
    if len(answer) < 2:
        raise CorruptFile("it is damaged in a way that crashes HDF5's own library, or keeps it busy for ever.")
    said = json.loads(answer[1])
    if said["error"]:
        raise ERRORS[said["error"]](said["text"])
    return int(said["texts"])


def _run(path: Path, memory: int, seconds: int) -> list[str] | None:
    """What the process said, line by line; None where it could not start."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    import h5py
    import numpy as np

    # Nothing else is needed, and nothing else is looked for: not in the working directory, nor what a site adds.
    files = (Path(__file__).parent, Path(h5py.__file__), Path(np.__file__))
    roots = dict.fromkeys(str(file.parents[1]) for file in files)
    command = [sys.executable, "-I", "-S", "-c", START, os.fspath(path), str(memory), str(seconds), *roots]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
            timeout=PATIENCE * seconds, env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        said = done.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    except OSError:
        return None
    lines = said.decode().splitlines()
    return lines if lines[:1] == [READY] else None

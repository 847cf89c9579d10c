"""Reads one file after another on demand, within bounds, and says what came of each: the child process of `pool`.

A line of JSON comes in, ``{"reader": "query", "path": "/tmp/x/query.h5ad"}``, and one goes out: ``outcome`` is "fine",
"named" (an error of scgraft's own) or "raw" (any other), ``digest`` stands for everything that was read, ``outside`` lists
what was opened beyond the folder of the file, ``memory`` is the most that the process held beyond what it needs itself (bytes).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import resource
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.files.trial import START

EXTRA = 1 << 30  # what one file may take beyond what the process has when it is ready (issue: 1 GB)
IN_OPEN = 0x20  # inotify(7)
opened: list[str] = []
sound: dict[str, Path] = {}


def digest(*values: object) -> str:
    """One hash for nested values, arrays and tables."""
    made = hashlib.sha256()

    def add(value: object) -> None:
        if hasattr(value, "tocsr"):
            value = value.tocsr().toarray()
        if hasattr(value, "columns"):
            value = {str(name): np.asarray(value[name].astype(object)).astype(str) for name in value.columns}
        if dataclasses.is_dataclass(value):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if isinstance(value, np.ndarray):
            made.update(repr((value.dtype.str, value.shape)).encode())
            made.update(value.astype(str).tobytes() if value.dtype == object else np.ascontiguousarray(value).tobytes())
        elif hasattr(value, "items"):
            for name in sorted(value, key=str):
                made.update(str(name).encode("utf-8", "backslashreplace"))
                add(value[name])
        elif isinstance(value, list | tuple):
            made.update(str(len(value)).encode())
            for item in value:
                add(item)
        else:
            made.update(str(value).encode("utf-8", "backslashreplace"))

    for value in values:
        add(value)
    return made.hexdigest()[:16]


def read_reference(path: Path) -> str:
    from scgraft.mapping.load import load_reference
    from scgraft.reference.describe import describe

    found = load_reference(path.parent)
    assert isinstance(str(describe(found)), str)
    cells = None if found.latent is None else (found.latent.mean, found.latent.variance, found.latent.cells)
    return digest(found.weights, found.schema, found.obs, cells, found.library, found.maps, found.minified)


def read_query(path: Path) -> str:
    from scgraft.query.counts import find_counts
    from scgraft.query.read import read_query as read

    adata = read(path)
    counts = find_counts(adata)
    return digest(adata.obs, np.asarray(adata.var_names, object), counts.matrix, counts.source)


def read_query_backed(path: Path) -> str:
    from scgraft.query.counts import find_counts
    from scgraft.query.read import read_query as read

    adata = read(path, backed=True)
    try:
        return digest(adata.obs, find_counts(adata[:50].to_memory()).matrix)
    finally:
        adata.file.close()


def read_query_in_runs(path: Path) -> str:
    from scgraft.query.cell_file import open_cells

    found = open_cells(path, ["batch"])
    runs = [found.read(slice(start, start + 20)) for start in range(0, found.n_cells, 20)]
    return digest([(run.obs, run.X) for run in runs])


def read_graft(path: Path) -> str:
    from scgraft.graft.store import load_graft

    found = load_graft(path.parent)
    return digest(found.base, found.levels, found.rows, found.record)


@functools.cache
def mapped_onto() -> Any:
    """The reference that was mapped onto, loaded once."""
    from scgraft.mapping.load import load_reference

    return load_reference(sound["minified"].parent)


def read_frozen(path: Path) -> str:
    from scgraft.mapping.frozen_store import load_frozen

    return digest(load_frozen(path.parent, mapped_onto()))


def read_part(path: Path) -> str:
    from scgraft.results import parts

    found, latent = parts.read_part(path), parts.read_latent(path)
    return digest(found, latent, [parts.read_column(path, str(name)) for name in found.table])


def read_calibration(path: Path) -> str:
    from scgraft.calibration.store import load_calibration

    return digest(load_calibration(path.parent))


def read_report(path: Path) -> str:
    from scgraft.results.page import report

    return hashlib.sha256(report(path.parent).read_bytes()).hexdigest()[:16]


READERS: dict[str, Callable[[Path], str]] = {
    "reference": read_reference,
    "minified": read_reference,
    "query": read_query,
    "backed query": read_query_backed,
    "query in runs": read_query_in_runs,
    "graft": read_graft,
    "calibration": read_calibration,
    "frozen": read_frozen,
    "part": read_part,
    "report": read_report,
}


def watch(folder: Path) -> int:
    """A descriptor that tells which files of a folder any part of this process opens, compiled libraries too (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_OPEN)
    return descriptor


def touched(descriptor: int) -> list[str]:
    names, buffer = [], b""
    try:
        while True:
            buffer += os.read(descriptor, 1 << 16)
    except BlockingIOError:
        pass
    while buffer:
        _, _, _, length = struct.unpack_from("iIII", buffer)
        names.append(buffer[16 : 16 + length].rstrip(b"\0").decode())
        buffer = buffer[16 + length :]
    return [name for name in names if name]


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(os.fsdecode(arguments[0]))
    elif event in ("subprocess.Popen", "os.posix_spawn") and START in (
        arguments[1] if isinstance(arguments[1], list) else ()
    ):
        pass  # the file's own trial, which Python 3.13 starts by a spawn
    elif event == "subprocess.Popen" and arguments[0] == "/sbin/ldconfig":
        pass  # libraries that look for others (ctypes.util.find_library)
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        opened.append(event)


def is_outside(path: str, folder: Path) -> bool:
    """Neither of the folder nor of Python, its libraries and the system's own tables."""
    if path in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        return True
    real = os.path.realpath(path)
    home = Path(__file__).resolve().parents[2]
    allowed = (
        str(folder), sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), str(home),
        "/proc/", "/dev/", "/sys/", "/usr/", "/lib", "/etc/", os.environ["SCGRAFT_CACHE"],
    )  # fmt: skip
    return not real.startswith(allowed)


def bound() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA, size + EXTRA))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def memory() -> int:
    """The most that this process held since this was asked last, in bytes (proc(5))."""
    words = Path("/proc/self/status").read_text().split()
    most = int(words[words.index("VmHWM:") + 1]) << 10
    Path("/proc/self/clear_refs").write_text("5")
    return most


def main() -> None:
    from scgraft.errors import ScgraftError

    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    ready = json.loads(sys.stdin.readline())
    sound.update((reader, Path(path)) for reader, path in ready["sound"])
    for reader, path in ready["sound"]:
        READERS[reader](Path(path))  # imports what it needs, before the limit
    descriptor = watch(Path(ready["secret"]))
    sys.addaudithook(hook)
    bound()
    memory()
    own = memory()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        path = Path(case["path"])
        opened.clear()
        answer: dict[str, object] = {"error": "", "digest": ""}
        try:
            answer["digest"] = READERS[case["reader"]](path)
            answer["outcome"] = "fine"
        except ScgraftError as error:
            answer |= {"outcome": "named", "error": f"{type(error).__name__}: {error}"[:400]}
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
            answer |= {"outcome": "raw", "error": f"{type(error).__name__}: {error}"[:400]}
        outside = [name for name in opened if is_outside(name, path.parent)]
        answer["outside"] = sorted({*outside, *touched(descriptor)})
        answer["memory"] = max(0, memory() - own)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

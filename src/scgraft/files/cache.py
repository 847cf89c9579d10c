"""Where what is made once is kept for the next run: a folder for each reference with its label columns, up to a limit."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

# A calibration of 60 labels and 3,000 genes takes 5 MB: some hundreds of references.
LIMIT = 2 * 10**9


@dataclass(frozen=True)
class Kept:
    """A folder of the cache: its size in bytes, and when it was last used (seconds since 1970)."""

    path: Path
    size: int
    used: float


def cache_root() -> Path:
    """``$SCGRAFT_CACHE``, or ``scgraft`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    A user without a home (in a container, on a node of a cluster) gets a place in which no file can be made: nothing is kept,
    and everything is made anew. Python would take a folder called "~" in the working directory.
    """
    if given := os.environ.get("SCGRAFT_CACHE"):
        return Path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "scgraft"
    home = Path(os.path.expanduser("~"))
    return (home if home.is_absolute() else Path(os.devnull)) / ".cache" / "scgraft"


def kept() -> list[Kept]:
    """What the cache holds, the last used first."""
    found = []
    for folder in cache_root().glob("*/*/"):
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        used = max([folder.stat().st_mtime, *(s.st_mtime for s in files)])
        found.append(Kept(folder, sum(s.st_size for s in files), used))
    return sorted(found, key=lambda k: (-k.used, k.path.name))


def mark_used(folder: Path) -> None:
    """Note that a folder of the cache was used now."""
    if folder.is_dir():
        os.utime(folder)


def keep_below(limit: int = LIMIT) -> list[Path]:
    """Remove the folders that have not been used for longest, until the cache is no larger than `limit` bytes."""
    total, removed = 0, []
    for entry in kept():
        total += entry.size
        if total > limit:
            shutil.rmtree(entry.path, ignore_errors=True)
            removed.append(entry.path)
    return removed


def clear() -> int:
    """Remove everything that the cache holds; the number of bytes."""
    entries = kept()
    for entry in entries:
        shutil.rmtree(entry.path, ignore_errors=True)
    return sum(entry.size for entry in entries)


def is_own(folder: Path) -> bool:
    """Whether nobody but this user can have written into a folder, or into the nearest one above it that exists.

    What somebody else put there could make wrong labels look sure.
    """
    if not hasattr(os, "getuid"):
        return True
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH

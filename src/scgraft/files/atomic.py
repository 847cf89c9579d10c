"""Folders and files that appear when they are complete, and not before.

What is being written stands in a hidden workspace beside its future place, locked by the process that writes it. The lock
ends with the process, however it ends: the next run in that folder sees that nobody owns the workspace and removes it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scgraft.errors import CannotWrite, OutputExists

WORKSPACE = ".scgraft-tmp-"
LOCK = "owner"
# A workspace has its lock within milliseconds; one without for an hour was left by a process killed in between.
UNLOCKED_SECONDS = 3600.0
# What libhdf5 says of the system's error, whatever Python error h5py makes of it.
SYSTEM = re.compile(r"errno = \d+, error message = '([^']*)'")


@contextmanager
def new_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the name `folder` when the block ends without an error.

    Raises
    ------
    OutputExists
        The name is taken and `force` is off, or it is a file.
    CannotWrite
        The disk is full, or the place cannot be written to. Nothing that was there is lost.
    """
    remove_leftovers(folder.parent)
    if os.path.isfile(folder) or (os.path.lexists(folder) and not force):
        raise OutputExists(
            f"{folder} exists already. Choose another folder, or use force=True (--force) to replace it."
        )
    with _named(folder), _workspace(folder.parent) as workspace:
        new, old = workspace / "new", workspace / "old"
        new.mkdir(mode=0o755)
        yield new
        old.mkdir()
        if os.path.lexists(folder):
            folder.rename(old / folder.name)
        try:
            new.rename(folder)
        except OSError:
            _bring_back(old, folder.parent)
            raise


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A file to write, which takes the name `path` when the block ends without an error.

    Raises
    ------
    OutputExists
        The name is taken and `force` is off, or it is a folder.
    CannotWrite
        The disk is full, or the place cannot be written to. A file that was there stays.
    """
    remove_leftovers(path.parent)
    if os.path.isdir(path) or (os.path.lexists(path) and not force):
        raise OutputExists(f"{path} exists already. Choose another name, or use force=True (--force) to replace it.")
    with _named(path), _workspace(path.parent) as workspace:
        new = workspace / path.name
        yield new
        new.replace(path)


def remove_folder(folder: Path) -> None:
    """Remove a folder: it is gone at once, and never half there, whatever ends the process.

    Raises
    ------
    CannotWrite
        It may not be moved or removed.
    """
    with _named(folder), _workspace(folder.parent) as workspace:
        folder.rename(workspace / "gone")


def remove_leftovers(parent: Path) -> None:
    """Remove workspaces in a folder whose owner has ended; a result that one of them had moved aside comes back first."""
    try:
        found = [Path(entry.path) for entry in os.scandir(parent) if entry.name.startswith(WORKSPACE)]
    except OSError:
        return  # it is not there yet, or cannot be looked at
    for workspace in found:
        lock = _lock(workspace / LOCK)
        if lock is None:
            continue
        with lock:
            _bring_back(workspace / "old", parent)
            shutil.rmtree(workspace, ignore_errors=True)


def _bring_back(old: Path, parent: Path) -> None:
    """Give a folder that was moved aside its name again, where nothing has taken that."""
    for kept in old.glob("*") if old.is_dir() else ():
        if not os.path.lexists(parent / kept.name):
            kept.rename(parent / kept.name)


@contextmanager
def _workspace(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=WORKSPACE, dir=parent))
    try:
        # It is named when it is locked: nobody finds it free.
        lock = _lock(workspace / f"{LOCK}.new", make=True)
        try:
            if lock is not None:
                (workspace / f"{LOCK}.new").rename(workspace / LOCK)
            yield workspace
        finally:
            if lock is not None:
                lock.close()
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _lock(path: Path, *, make: bool = False) -> IO[bytes] | None:
    """The file, locked by this process until it is closed; None where another holds it, or the system has no such lock."""
    try:
        import fcntl
    except ImportError:  # Windows: leftovers stay
        return None
    try:
        if not make and not path.exists():
            return _abandoned(path)
        file = path.open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _abandoned(path: Path) -> IO[bytes] | None:
    """A file for a workspace that never got its lock, is too old to get it still, and holds nothing else."""
    workspace = path.parent
    if {item.name for item in workspace.iterdir()} - {f"{LOCK}.new"}:
        return None
    return path.open("ab") if time.time() - workspace.stat().st_mtime > UNLOCKED_SECONDS else None


@contextmanager
def _named(place: Path) -> Iterator[None]:
    """The system's own errors of writing as one of scgraft's; of what is written into a workspace, the place is the whole."""
    try:
        yield
    except CannotWrite as error:
        if WORKSPACE not in str(error):
            raise
        raise _cannot(place, error.__cause__ or error) from error.__cause__
    except Exception as error:
        if not is_of_the_system(error):
            raise
        raise _cannot(place, error) from error


def is_of_the_system(error: BaseException) -> bool:
    """Whether writing failed for the disk and not for the values; HDF5's library says so in a text."""
    return isinstance(error, OSError) or SYSTEM.search(str(error)) is not None


def _cannot(place: Path, error: BaseException) -> CannotWrite:
    found = SYSTEM.search(str(error))
    said = found[1] if found else getattr(error, "strerror", None) or error
    return CannotWrite(
        f"{place} could not be written: {said}. What was there before is unchanged. Free some space, or choose a place that you "
        "may write to."
    )

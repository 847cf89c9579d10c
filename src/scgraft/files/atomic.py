"""Folders and files that appear when they are complete, and not before."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scgraft.errors import OutputExists


@contextmanager
def new_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the name `folder` when the block ends without an error.

    Raises
    ------
    OutputExists
        The name is taken and `force` is off, or it is a file.
    """
    if folder.is_file() or (folder.exists() and not force):
        raise OutputExists(f"{folder} exists already. Choose another folder, or use force=True to replace it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield new
        new.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(old / folder.name)
            new.rename(folder)
            shutil.rmtree(old)
        else:
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A file to write, which takes the name `path` when the block ends without an error.

    Raises
    ------
    OutputExists
        The name is taken and `force` is off, or it is a folder.
    """
    if path.is_dir() or (path.exists() and not force):
        raise OutputExists(f"{path} exists already. Choose another name, or use force=True to replace it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / path.name
        yield new
        new.replace(path)

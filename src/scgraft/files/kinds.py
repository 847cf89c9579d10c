"""What a file is that is not what was asked for: a pointer in place of a large file, or an archive of the files."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from scgraft.errors import CorruptFile

POINTER = b"version https://git-lfs"  # how each begins (Git LFS specification, "The pointer")


def check_pointer(path: Path) -> None:
    """Refuse what git writes in place of a large file that was not downloaded.

    Raises
    ------
    CorruptFile
        It is such a pointer.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(POINTER))
    if head == POINTER:
        raise CorruptFile(
            f"{path.name} is a Git LFS pointer, not the file itself. Download the file (git lfs pull, or load the "
            "repository by its name)."
        )


def what_to_do(path: Path) -> str:
    """What a file is that was given in place of a reference's folder, and what to do, in a sentence."""
    if path.name.endswith((".pt", ".h5ad", ".pkl", ".csv", ".json")):
        return f"It is one of a reference's files: pass the folder that holds it ({path.parent})."
    try:
        if zipfile.is_zipfile(path):
            return f"It is a zip archive: unpack it (unzip {path.name}), and pass the folder in it that holds model.pt."
        if tarfile.is_tarfile(path):
            return (
                f"It is a tar archive: unpack it (tar xf {path.name}), and pass the folder in it that holds model.pt."
            )
        check_pointer(path)
    except CorruptFile:
        return "It is a Git LFS pointer, not the file itself: download it (git lfs pull)."
    except (OSError, EOFError, ValueError):
        pass  # it cannot be looked into
    return "Pass the folder that holds model.pt."

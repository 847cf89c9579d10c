"""Files of the hub's cache are compared with the hash that the hub stated for them.

The cache of huggingface_hub names each file by it: the sha256 of a large file, the git blob id of a small one. A byte that
changed on this disk since the download is found, whichever file it is in.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from scgraft.errors import CorruptFile

BLOCK = 1 << 20  # bytes read at a time: a megabyte; any size is as fast
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_BLOB = re.compile(r"[0-9a-f]{40}")


def sha256(path: Path) -> str:
    """Hash of a file, in hex."""
    return _digest(path, hashlib.sha256())


def stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file's content: another one is another file, or was written to."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def remembered_sha256(path: Path) -> str:
    """Hash of a file, in hex, made once by this process for as long as the file stays as it is; of a folder, of its files."""
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.is_file())
        said = "".join(f"{item.relative_to(path).as_posix()}\0{sha256(item)}\0" for item in files)
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()
    return _remembered(path.absolute(), stamp(path))


@lru_cache(maxsize=64)
def _remembered(path: Path, stamp: tuple[int, ...]) -> str:
    return sha256(path)


def git_blob(path: Path) -> str:
    """Name that git gives a file's content, in hex (git-hash-object(1))."""
    header = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(header, usedforsecurity=False))


def stated_hash(path: Path) -> str | None:
    """The hash that the hub stated for a file of the cache; None where the cache does not say (copied files, Windows)."""
    blob = path.resolve()
    known = blob.parent.name == "blobs" and (SHA256.fullmatch(blob.name) or GIT_BLOB.fullmatch(blob.name))
    return blob.name if known else None


def check_stated_hash(path: Path) -> None:
    """Refuse a file of the cache that is not what the hub stated.

    Raises
    ------
    CorruptFile
        It was changed, or cut, since it was downloaded.
    """
    stated = stated_hash(path)
    if stated is None:
        return
    found = sha256(path) if SHA256.fullmatch(stated) else git_blob(path)
    if found != stated:
        raise CorruptFile(
            f"{path.name} in the cache is not the file of the hub: the hub states the hash {stated[:12]}, this one has "
            f"{found[:12]}. It was damaged or changed on this disk. Remove {path.resolve()} and load again."
        )


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()

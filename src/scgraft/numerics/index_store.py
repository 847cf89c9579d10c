"""What is made for the points of a large index is kept for the next run, under the hash of the points' own bytes.

A cache that somebody else can write to is neither read nor written; what is cut or changed there is made anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile, ScgraftError
from scgraft.files import schema
from scgraft.files.atomic import new_file
from scgraft.files.cache import cache_root, is_own, keep_below, mark_used
from scgraft.files.content import content_hash
from scgraft.files.hashes import sha256
from scgraft.files.npz import Array, read_npz

LISTS, SPACING, SAID = "lists.faiss", "spacing.npz", "lists.json"


def folder_of(points: np.ndarray) -> Path:
    """Where what is made for points (n, d) is kept."""
    digest = hashlib.sha256(f"{points.dtype}{points.shape}".encode())
    digest.update(np.ascontiguousarray(points).tobytes())
    return cache_root() / "neighbours" / digest.hexdigest()[:24]


def kept_spacing(folder: Path, n: int) -> np.ndarray | None:
    """Spacing of n points, (n,) float32; None where none is kept."""
    if not is_own(folder):
        return None
    try:
        file = read_npz(folder / SPACING, {"spacing": Array("f", 1), "sha256": Array("U", 0)})
    except CorruptFile:
        return None
    spacing = file["spacing"]
    if spacing.shape != (n,) or spacing.dtype != np.float32 or content_hash(spacing) != str(file["sha256"]):
        return None
    mark_used(folder)
    return spacing


def keep_spacing(folder: Path, spacing: np.ndarray) -> None:
    """Keep it, where that is possible."""
    if is_own(folder):
        try:
            with new_file(folder / SPACING, force=True) as new:
                np.savez(new, spacing=spacing, sha256=np.array(content_hash(spacing)))
            keep_below()
        except (OSError, ScgraftError):
            return  # a home that cannot be written to: it is made again next time


def kept_lists(folder: Path) -> tuple[Any, float] | None:
    """Faiss' index over the points, and the share of exact neighbours that it finds; None where none is kept."""
    if not is_own(folder):
        return None
    try:
        import faiss

        said = schema.parse((folder / SAID).read_bytes(), _said(), SAID)
        # faiss trusts what it reads: it reads what this package wrote, unchanged.
        if said["faiss"] != faiss.__version__ or said["sha256"] != sha256(folder / LISTS):
            return None
        index: Any = faiss.read_index(str(folder / LISTS))
        index.nprobe = int(said["nprobe"])
        found = index, float(said["recall"])
    except (ImportError, OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    mark_used(folder)
    return found


def keep_lists(folder: Path, index: Any, recall: float) -> None:
    """Keep them, where that is possible."""
    import faiss

    if not is_own(folder):
        return
    try:
        with new_file(folder / LISTS, force=True) as new:
            faiss.write_index(index, str(new))
        said = {"faiss": faiss.__version__, "sha256": sha256(folder / LISTS), "nprobe": index.nprobe, "recall": recall}
        with new_file(folder / SAID, force=True) as new:
            new.write_text(json.dumps(said) + "\n", encoding="utf-8")
        keep_below()
    except (OSError, RuntimeError, ScgraftError):
        return  # as above


def _said() -> schema.Check:
    return schema.record(
        {"faiss": schema.text, "sha256": schema.text, "nprobe": schema.whole, "recall": schema.number(0, 1)}
    )

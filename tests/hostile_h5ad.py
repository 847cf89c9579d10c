"""AnnData files that somebody made in order to harm: kinds of damage, each with its members, applied to a sound file.

`secret` is a file outside of the folder that holds ``SECRET``; a member that leads there must not bring it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

SECRET = "the secret of another file"
Damage = Callable[[h5py.File, Path], None]


def write_secret(folder: Path) -> Path:
    """A file that is nobody's business: one dataset of text, one of numbers, a whole obs."""
    path = folder / "secret.h5"
    with h5py.File(path, "w") as file:
        file["text"] = np.array([SECRET] * 4, dtype=object)
        file["numbers"] = np.arange(1e4)
        file.create_dataset("growing", data=np.arange(1e4), maxshape=(None,))
        obs = file.create_group("obs")
        obs.attrs["_index"], obs.attrs["column-order"] = "_index", np.array([], dtype=object).astype("S")
        obs["_index"] = np.array([SECRET] * 4, dtype=object)
    (folder / "secret.bin").write_bytes(SECRET.encode() * 4096)
    return path


def _first_column(file: h5py.File) -> str:
    return sorted(name for name in file["obs"] if name != file["obs"].attrs["_index"])[0]


def _replace(place: str, link: Callable[[Path], object]) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        if place in file:
            del file[place]
        file[place] = link(secret)

    return damage


def _external(inner: str) -> Callable[[Path], object]:
    return lambda secret: h5py.ExternalLink(str(secret), inner)


def _virtual(place: str, source: str, inner: str, *, growing: bool = False) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        shape = file[place].shape if place in file and hasattr(file[place], "shape") else (4,)
        if place in file:
            del file[place]
        count = int(np.prod(shape))
        layout = h5py.VirtualLayout(shape, "f8", maxshape=(None,) * len(shape) if growing else None)
        origin = h5py.VirtualSource(source or str(secret), inner, shape=shape, maxshape=(None,) if growing else None)
        layout[...] = origin[:count] if len(shape) == 1 else origin
        file.create_virtual_dataset(place, layout)

    return damage


def _raw_external(place: str, offset: int = 0) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        shape, dtype = (4,), "S26"
        if place in file and hasattr(file[place], "shape"):
            shape, dtype = file[place].shape, "f4" if file[place].dtype.kind == "O" else file[place].dtype
        if place in file:
            del file[place]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        file.create_dataset(place, shape, dtype, external=[(str(secret.with_suffix(".bin")), offset, size)])

    return damage


LEADS_OUT: dict[str, Damage] = {
    "external link as obs": _replace("obs", _external("/obs")),
    "external link as var": _replace("var", _external("/obs")),
    "external link as the index": _replace("obs/_index", _external("/text")),
    "external link as a new column": _replace("obs/stolen", _external("/text")),
    "external link in uns": _replace("uns/stolen", _external("/text")),
    "external link deep in uns": _replace("uns/a/b/c/d", _external("/text")),
    "external link as obsm": _replace("obsm/X_stolen", _external("/numbers")),
    "external link as a layer": _replace("layers/stolen", _external("/numbers")),
    "external link to a folder": _replace("uns/stolen", lambda secret: h5py.ExternalLink(str(secret.parent), "/")),
    "external link to this file": _replace("uns/stolen", lambda secret: h5py.ExternalLink("adata.h5ad", "/obs")),
    "virtual dataset in obsm": _virtual("obsm/X_stolen", "", "numbers"),
    "virtual dataset as the index": _virtual("obs/_index", "", "numbers"),
    "virtual dataset in uns": _virtual("uns/stolen", "", "numbers"),
    "virtual dataset as a layer": _virtual("layers/stolen", "", "numbers"),
    "growing virtual dataset": _virtual("uns/stolen", "", "growing", growing=True),
    "virtual dataset of itself": _virtual("uns/stolen", ".", "uns/stolen"),
    "virtual dataset of itself in obsm": _virtual("obsm/X_umap", ".", "obsm/X_umap"),
    "virtual dataset of a missing file": _virtual("uns/stolen", "missing.h5", "numbers"),
    "virtual dataset of this file": _virtual("uns/stolen", "adata.h5ad", "obs"),
    "virtual dataset as a column": _virtual("obs/stolen", "", "numbers"),
    "raw external storage in uns": _raw_external("uns/stolen"),
    "raw external storage as a column": _raw_external("obs/stolen"),
    "raw external storage in obsm": _raw_external("obsm/X_umap"),
    "raw external storage at an offset": _raw_external("uns/stolen", offset=7),
    "raw external storage as the index": _raw_external("obs/_index"),
}


def _loop(file: h5py.File, secret: Path) -> None:
    file["uns/loop"] = file["uns"]


def _loop_of_two(file: h5py.File, secret: Path) -> None:
    inner = file.create_group("uns/a/b")
    inner["back"] = file["uns/a"]


def _doubling(file: h5py.File, secret: Path) -> None:
    group = file.create_group("uns/bomb")
    for _ in range(25):
        child = group.create_group("left")
        group["right"] = child
        group = child


def _deep(file: h5py.File, secret: Path) -> None:
    file.create_group("uns/" + "/".join("d" * 600))


def _soft(place: str, target: str) -> Damage:
    return _replace(place, lambda secret: h5py.SoftLink(target))


def _hidden_reference(file: h5py.File, secret: Path) -> None:
    column = _first_column(file)
    hidden = file.create_dataset(None, data=np.arange(3))
    target = file["obs"][column]
    target.attrs["categories"] = hidden.ref


def _reference_list(file: h5py.File, secret: Path) -> None:
    file["obs"].attrs.create("categories", [file["obs"].ref, file["var"].ref], dtype=h5py.ref_dtype)


NO_TREE: dict[str, Damage] = {
    "a group within itself": _loop,
    "two groups within each other": _loop_of_two,
    "two names for each of 25 groups": _doubling,
    "the root within uns": lambda file, secret: file["uns"].__setitem__("root", file["/"]),
    "600 groups deep": _deep,
    "soft link to the root": _soft("uns/loop", "/"),
    "soft link to its group": _soft("uns/loop", "/uns"),
    "soft link to itself": _soft("uns/loop", "/uns/loop"),
    "soft link to nothing": _soft("uns/loop", "/nothing"),
    "soft link as obs": _soft("obs", "/var"),
    "soft link up": _soft("uns/loop", ".."),
    "reference to an object without a name": _hidden_reference,
    "attribute of many references": _reference_list,
}


def _unallocated(
    place: str, shape: tuple[int, ...], chunks: tuple[int, ...] | None = None, dtype: str = "f4"
) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        if place in file:
            del file[place]
        file.create_dataset(place, shape, dtype, chunks=chunks)

    return damage


def _group_unallocated(place: str, name: str, n: int) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        attrs = dict(file[place].attrs)
        file.create_dataset(f"{place}/{name}_huge", (n,), file[f"{place}/{name}"].dtype, chunks=(1 << 20,))
        del file[f"{place}/{name}"]
        file.move(f"{place}/{name}_huge", f"{place}/{name}")
        file[place].attrs.update(attrs)

    return damage


def _many_small(place: str, n: int) -> Damage:
    """Datasets of which each is below what may be empty on disk."""

    def damage(file: h5py.File, secret: Path) -> None:
        for i in range(n):
            file.create_dataset(f"{place}/empty_{i}", (15_000_000,), "f4", chunks=(1 << 16,))

    return damage


TOO_LARGE: dict[str, Damage] = {
    "uns of twenty that are each small": _many_small("uns", 20),
    "a frame of twenty that are each small": _many_small("obs", 20),
    "obsm of twenty that are each small": _many_small("obsm", 20),
    "posterior of 373 GB": _unallocated("obsm/scvi_latent_qzm", (10**9, 100)),
    "posterior of 1e8 cells": _unallocated("obsm/scvi_latent_qzm", (10**8, 30), (1 << 16, 30)),
    "variance of 1e8 cells": _unallocated("obsm/scvi_latent_qzv", (10**8, 30), (1 << 16, 30)),
    "layer of 1e12 numbers": _unallocated("layers/huge", (10**6, 10**6)),
    "X of 1e12 numbers": _unallocated("X", (10**6, 10**6)),
    "index of 1e8 names": _unallocated("obs/_index", (10**8,), (1 << 20,), "S8"),
    "index of 1e15 names": _unallocated("obs/_index", (10**15,), (1 << 20,), "S8"),
    "genes of 1e8 names": _unallocated("var/_index", (10**8,), (1 << 20,), "S8"),
    "uns of 1e12 numbers": _unallocated("uns/huge", (10**12,), (1 << 20,)),
    "a chunk of 3 GB": _unallocated("uns/huge", (750_000_000,), (750_000_000,)),
    "deep in uns": _unallocated("uns/a/b/huge", (10**6, 10**5)),
    "text of 1e9 bytes an item": _unallocated("uns/huge", (100,), (1,), "S1000000000"),
}


def _sparse_places(file: h5py.File) -> list[str]:
    places = ["X", *(f"layers/{name}" for name in file.get("layers", {}))]
    return [place for place in places if isinstance(file.get(place), h5py.Group)]


def _rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        for place in _sparse_places(file):
            values = change(file[place][name][:])
            del file[place][name]
            file[place].create_dataset(name, data=values)

    return damage


def _at(position: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[position] = value
        return values

    return change


def _shape(*shape: object) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        for place in _sparse_places(file):
            file[place].attrs["shape"] = np.array(shape)

    return damage


# Each needs a sparse matrix with values.
BROKEN_SPARSE: dict[str, Damage] = {
    "indptr starts at 1": _rewrite("indptr", _at(0, 1)),
    "indptr starts at -1": _rewrite("indptr", _at(0, -1)),
    "indptr falls": _rewrite("indptr", _at(2, 2**30)),
    "indptr is negative": _rewrite("indptr", _at(2, -(2**30))),
    "indptr ends beyond": _rewrite("indptr", _at(-1, 2**30)),
    "indptr ends early": _rewrite("indptr", _at(-1, 1)),
    "indptr is short": _rewrite("indptr", lambda v: v[:-1]),
    "indptr is empty": _rewrite("indptr", lambda v: v[:0]),
    "indptr is text": _rewrite("indptr", lambda v: v.astype("S")),
    "indptr is a matrix": _rewrite("indptr", lambda v: v[:, None]),
    "indptr is NaN": _rewrite("indptr", lambda v: v * np.nan),
    "index beyond the genes": _rewrite("indices", _at(0, 2**30)),
    "last index just beyond": _rewrite("indices", lambda v: np.append(v[:-1], v.max() + 10**6)),
    "negative index": _rewrite("indices", _at(0, -5)),
    "indices are short": _rewrite("indices", lambda v: v[:-3]),
    "indices are fractions": _rewrite("indices", lambda v: v + 0.5),
    "indices are text": _rewrite("indices", lambda v: v.astype("S")),
    "values are short": _rewrite("data", lambda v: v[:-3]),
    "values are text": _rewrite("data", lambda v: v.astype("S")),
    "values are missing": lambda file, secret: [file[place].__delitem__("data") for place in _sparse_places(file)] and None,
    "shape is too tall": _shape(10**9, 10),
    "shape is too wide": _shape(5, 10**15),
    "shape is negative": _shape(-1, -1),
    "shape is text": _shape(b"a", b"b"),
    "shape has one number": _shape(7),
    "shape is NaN": _shape(np.nan, np.nan),
}  # fmt: skip


def _delete(*places: str) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        for place in places:
            del file[place]

    return damage


def _put(place: str, value: object) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        if place in file:
            del file[place]
        file[place] = value

    return damage


def _attribute(place: str, name: str, value: object) -> Damage:
    return lambda file, secret: file[place].attrs.__setitem__(name, value)


def _column(change: Callable[[h5py.Group], None]) -> Damage:
    """Change the first categorical column of obs."""

    def damage(file: h5py.File, secret: Path) -> None:
        names = [n for n in file["obs"] if file["obs"][n].attrs.get("encoding-type") == "categorical"]
        for name in names:
            change(file["obs"][name])

    return damage


def _codes(values: Callable[[np.ndarray], object]) -> Damage:
    def change(group: h5py.Group) -> None:
        new = values(group["codes"][:])
        del group["codes"]
        group["codes"] = new

    return _column(change)


def _unknown_filter(file: h5py.File, secret: Path) -> None:
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((4,))
    made.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((4,))
    del file["obs/_index"]
    h5py.h5d.create(file["obs"].id, b"_index", h5py.h5t.NATIVE_INT64, space, dcpl=made)


NOT_ANNDATA: dict[str, Damage] = {
    "no obs": _delete("obs"),
    "no var": _delete("var"),
    "obs is a number": _put("obs", 3),
    "obs is text": _put("obs", "cells"),
    "var is a matrix": _put("var", np.zeros((3, 3))),
    "index is missing": _delete("obs/_index"),
    "index is a group": lambda file, secret: _delete("obs/_index")(file, secret) or file.create_group("obs/_index") and None,
    "index is a matrix": _put("obs/_index", np.zeros((3, 3))),
    "index is short": _put("obs/_index", np.array(["a", "b"], dtype=object)),
    "index has two names": _attribute("obs", "_index", np.array(["a", "b"], dtype=object)),
    "index is named by a number": _attribute("obs", "_index", 3),
    "columns named by numbers": _attribute("obs", "column-order", np.arange(3)),
    "columns that are not there": _attribute("obs", "column-order", np.array(["x", "y"], dtype=object)),
    "a thousand times a column": _attribute("obs", "column-order", np.array(["x"] * 1000, dtype=object)),
    "unknown encoding": _attribute("obs", "encoding-type", "a stranger's"),
    "unknown version": _attribute("obs", "encoding-version", "99"),
    "codes are short": _codes(lambda v: v[:-1]),
    "codes are beyond": _codes(lambda v: v.astype(np.int32) + 10**6),
    "codes are negative": _codes(lambda v: v.astype(np.int32) - 10**6),
    "codes are fractions": _codes(lambda v: v + 0.5),
    "codes are text": _codes(lambda v: v.astype("S")),
    "no categories": _column(lambda group: group.__delitem__("categories")),
    "empty categories": _column(lambda g: g.__delitem__("categories") or g.__setitem__("categories", np.array([], "S1"))),
    "the same category twice": _column(
        lambda g: g.__delitem__("categories") or g.__setitem__("categories", np.array(["a"] * 99, dtype=object))
    ),
    "unknown filter": _unknown_filter,
    "obsm is a number": _put("obsm", 3.0),
    "layers is text": _put("layers", "counts"),
    "uns of an unknown encoding": lambda file, secret: file.create_group("uns/x").attrs.update({"encoding-type": "awkward-array"}),
}  # fmt: skip


def _map(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(file: h5py.File, secret: Path) -> None:
        values = change(file["obsm/X_umap"][:])
        del file["obsm/X_umap"]
        file["obsm/X_umap"] = values

    return damage


# A map that cannot be drawn is left out, and the reference loads.
BAD_MAP: dict[str, Damage] = {
    "all NaN": _map(lambda v: v * np.nan),
    "one NaN": _map(lambda v: np.concatenate([v[:-1], [[np.nan, 0]]])),
    "infinite": _map(lambda v: v + np.inf),
    "minus infinite": _map(lambda v: np.concatenate([[[-np.inf, 1]], v[1:]])),
    "1e300": _map(lambda v: v.astype(np.float64) + 1e300),
    "1e30": _map(lambda v: np.concatenate([v[:-1], [[1e30, 0]]])),
    "one cell short": _map(lambda v: v[:-1]),
    "twice as long": _map(lambda v: np.concatenate([v, v])),
    "empty": _map(lambda v: v[:0]),
    "text": _map(lambda v: v.astype("S")),
    "1e8 cells": _unallocated("obsm/X_umap", (10**8, 2), (1 << 20, 2)),
}

KINDS: dict[str, dict[str, Damage]] = {
    "leads out": LEADS_OUT,
    "no tree": NO_TREE,
    "too large": TOO_LARGE,
    "broken sparse": BROKEN_SPARSE,
    "not AnnData": NOT_ANNDATA,
    "bad map": BAD_MAP,
}


def members(*kinds: str) -> Iterator[tuple[str, str]]:
    """Kind and name of every member."""
    for kind in kinds or KINDS:
        for name in KINDS[kind]:
            yield kind, name


def harm(path: Path, kind: str, name: str, secret: Path) -> Path:
    """Damage a sound file in place."""
    with h5py.File(path, "r+") as file:
        for part in ("uns", "obsm", "layers"):
            file.require_group(part)
        KINDS[kind][name](file, secret)
    return path

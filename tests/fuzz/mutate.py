"""Random damage to files: of their bytes, and of what stands in them; everything follows from the generator of numbers."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Rng = np.random.Generator
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
# What stands in no file that scgraft or scvi-tools wrote.
VALUES: list[Any] = [
    None, True, False, 0, -1, 3, 2**63, -(2**70), 10**400, 0.5, 1e308, -1e308, float("nan"), float("inf"), "", "x", "\x1b[2J",
    "\ud800", "=1+1", "<script>", "nan", "x" * 5000, [], [1], ["a", "a"], [[]], {}, {"": 0}, {"a": {"b": None}}, DEEP,
]  # fmt: skip


def of_bytes(rng: Rng, data: bytes) -> bytes:
    """One to three changes of single bytes, a cut, or a stretch that is repeated, emptied or thrown out."""
    changed, kind = bytearray(data), rng.integers(6)
    at = int(rng.integers(len(changed)))
    end = min(at + int(rng.integers(1, 65)), len(changed))
    if kind < 2:
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        changed[at:at] = changed[at:end]
    elif kind == 4:
        changed[at:end] = bytes([rng.choice([0, 255])]) * (end - at)
    else:
        del changed[at:end]
    return bytes(changed)


def of_json(rng: Rng, value: Any) -> Any:
    """One value anywhere in the document replaced, taken out, or added."""
    value = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        item = todo.pop()
        for key in item if isinstance(item, dict) else range(len(item)):
            places.append((item, key))
            if isinstance(item[key], dict | list):
                todo.append(item[key])
    parent, key = places[rng.integers(len(places))]
    new = VALUES[rng.integers(len(VALUES))]
    kind = rng.integers(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent["added"] = new
    elif kind == 1:
        parent.append(new)
    else:
        parent[key] = new
    return value


def _bytes(value: np.ndarray) -> np.ndarray:
    return np.char.encode(value, "utf-8", "surrogatepass") if value.dtype.kind == "U" else value.astype("S")


def _array(rng: Rng, value: np.ndarray) -> np.ndarray:
    kind = rng.integers(8)
    if kind == 0:
        return value[: len(value) // 2] if value.ndim else value[None]
    if kind == 1:
        return value[None]
    if kind == 2:
        return (
            value.astype(rng.choice(["S", "U", "i8", "f2", "c16", "?"]))
            if value.dtype.kind in "iufb"
            else _bytes(value)
        )
    if kind == 3:
        return np.concatenate([value, value]) if value.ndim else value
    if kind == 4:
        return value.ravel()
    value = np.array(value)
    if value.size and value.dtype.kind in "iuf":
        limits = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        odd = [np.nan, np.inf, -1.0, 1e30] if limits is None else [limits.min, limits.max, 0, limits.max // 2]
        value.flat[rng.integers(value.size)] = odd[rng.integers(len(odd))]
    elif value.size and value.dtype.kind == "b":
        value.flat[rng.integers(value.size)] ^= True
    return value


def of_npz(rng: Rng, data: bytes) -> bytes:
    """One array of another shape, type or content; taken out, or added; or the JSON text in one changed."""
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file.files}
    name = sorted(arrays)[rng.integers(len(arrays))]
    kind = rng.integers(8)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays["added"] = arrays[name]
    elif "document" in arrays and kind < 5:
        arrays["document"] = np.array(json.dumps(of_json(rng, json.loads(str(arrays["document"])))))
    else:
        with np.errstate(all="ignore"):
            arrays[name] = _array(rng, arrays[name])
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def of_zip(rng: Rng, data: bytes) -> bytes:
    """Bytes of one entry changed, with the checksum that belongs to them; or the entries' names."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        entries = old.infolist()
        chosen = entries[rng.integers(len(entries))].filename
        kind = rng.integers(5)
        for info in entries:
            content = old.read(info)
            if info.filename == chosen and content:
                if kind == 0:
                    continue
                if kind == 1:
                    new.writestr(info.filename + "x", content)
                    continue
                content = of_bytes(rng, content)
            new.writestr(info.filename, content)
    return out.getvalue()


def of_csv(rng: Rng, data: bytes) -> bytes:
    """A cell, a column or a row changed, taken out or doubled."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row, column = rng.integers(len(rows)), rng.integers(len(rows[0]))
    kind = rng.integers(6)
    if kind == 0:
        del rows[row]
    elif kind == 1:
        rows = [cells[:column] + cells[column + 1 :] for cells in rows]
    elif kind == 2:
        rows.insert(row, rows[row])
    elif kind == 3:
        rows = [[*cells, cells[column]] for cells in rows]
    elif column < len(rows[row]):
        value = VALUES[rng.integers(len(VALUES))]
        rows[row][column] = str(value)[:5000]
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


def of_graft(rng: Rng, folder: Path) -> None:
    """The document changed, and its checksum made anew, as somebody would who means harm."""
    path = folder / "graft.json"
    document = of_json(rng, json.loads(path.read_text()))
    if isinstance(document, dict):
        try:
            content = {key: value for key, value in document.items() if key != "checksum"}
            made = hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
            document["checksum"] = made
        except ValueError:
            pass
    path.write_text(json.dumps(document))


def of_h5(rng: Rng, path: Path) -> None:
    """One object, attribute or number of an HDF5 file changed."""
    with h5py.File(path, "r+") as file:
        places: list[str] = []
        file.visit(places.append)
        place = places[rng.integers(len(places))]
        item, kind = file[place], rng.integers(8)
        if kind == 0:
            del file[place]
        elif kind == 1:
            del file[place]
            odd = [
                3,
                "text",
                np.zeros((2, 3)),
                np.array(["a", "b"], dtype=object),
                np.nan,
                np.zeros(0),
                h5py.Empty("f4"),
            ]
            file[place] = odd[rng.integers(len(odd))]
        elif kind == 2:
            links = [h5py.SoftLink("/"), h5py.SoftLink(f"/{place}"), h5py.ExternalLink("/etc/hosts", "/"), file["/"]]
            del file[place]
            file[place] = links[rng.integers(len(links))]
        elif kind == 3 and len(item.attrs):
            name = sorted(item.attrs)[rng.integers(len(item.attrs))]
            odd = [3, "text", "csr_matrix", "dataframe", np.arange(5), np.array([-1, 10**12]), h5py.Empty("f4"), "99.0"]
            item.attrs[name] = odd[rng.integers(len(odd))]
        elif kind == 4 and len(item.attrs):
            del item.attrs[sorted(item.attrs)[rng.integers(len(item.attrs))]]
        elif isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in "iufb":
            attributes, value = dict(item.attrs), item[()]
            with np.errstate(all="ignore"):
                value = _array(rng, np.asarray(value))
            del file[place]
            file.create_dataset(place, data=value.astype("S") if value.dtype.kind == "U" else value)
            file[place].attrs.update(attributes)
        elif isinstance(item, h5py.Group) and kind == 5:
            item.create_dataset("huge", (10**9, 50), "f4", chunks=(1000, 50))


def _file(change: Callable[[Rng, bytes], bytes], name: str) -> Callable[[Rng, Path], None]:
    def damage(rng: Rng, folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(rng, path.read_bytes()))

    return damage


def _json_file(name: str) -> Callable[[Rng, Path], None]:
    def damage(rng: Rng, folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(of_json(rng, json.loads(path.read_text()))))

    return damage


def _h5ad(rng: Rng, folder: Path) -> None:
    of_h5(rng, folder / "adata.h5ad")


CALIBRATION = "calibration-0.npz"
Damage = Callable[[Rng, Path], None]
# What is fuzzed, what is read fastest first: the reader of `worker`, the file that it is given, and ways to damage a copy of its
# folder.
TARGETS: dict[str, tuple[str, str, tuple[Damage, ...]]] = {
    "graft": ("graft", "graft.json", (_file(of_bytes, "graft.json"), _file(of_bytes, "graft.safetensors"), of_graft)),
    "calibration": (
        "calibration",
        CALIBRATION,
        (_file(of_bytes, CALIBRATION), _file(of_zip, CALIBRATION), _file(of_npz, CALIBRATION)),
    ),
    "frozen": (
        "frozen",
        "frozen.json",
        (*(_file(way, "frozen.npz") for way in (of_bytes, of_zip, of_npz)), _json_file("frozen.json")),
    ),
    "part": ("part", "00000.npz", tuple(_file(way, "00000.npz") for way in (of_bytes, of_zip, of_npz))),
    "map.npz": ("report", "map.npz", (_file(of_bytes, "map.npz"), _file(of_zip, "map.npz"), _file(of_npz, "map.npz"))),
    "labels.csv": ("report", "labels.csv", (_file(of_bytes, "labels.csv"), _file(of_csv, "labels.csv"))),
    "summary.json": ("report", "summary.json", (_file(of_bytes, "summary.json"), _json_file("summary.json"))),
    "model.pt": ("minified", "adata.h5ad", (_file(of_bytes, "model.pt"), _file(of_zip, "model.pt"))),
    "minified adata.h5ad": ("minified", "adata.h5ad", (_file(of_bytes, "adata.h5ad"), _h5ad)),
    "adata.h5ad with counts": ("reference", "adata.h5ad", (_file(of_bytes, "adata.h5ad"), _h5ad)),
    "README.md": ("minified", "adata.h5ad", (_file(of_bytes, "README.md"),)),
    "_scvi_required_metadata.json": (
        "minified",
        "adata.h5ad",
        (_file(of_bytes, "_scvi_required_metadata.json"), _json_file("_scvi_required_metadata.json")),
    ),
    "query.h5ad": ("query", "adata.h5ad", (_file(of_bytes, "adata.h5ad"), _h5ad)),
}

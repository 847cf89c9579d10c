"""Reads model.pt and attr.pkl through an allow-list; nothing that a file says is executed.

A pickle is a program that may call any global it names. Here a global is either on the list below, and then it is
replaced by a stand-in of our own, or the file is refused by name. Tensors are taken from the zip's storages as numpy
arrays; pandas objects, which only the training history holds, become inert. torch and pandas are never imported.

Source of the format: the pickle protocol of the Python documentation, and torch.save's zip layout (``data.pkl`` beside
``data/<key>`` storages).
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile, ScgraftError, UnsafeFile

MAX_PICKLE = 1 << 30
MAX_STORAGE = 64 << 30
MAX_COMPRESSED = 256 << 20
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?", "UntypedStorage": "u1",
}  # fmt: skip
DTYPES = {"O", "O8", "?", "b1", "b", "B", *(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8))}
_DAMAGE = (
    pickle.UnpicklingError, EOFError, KeyError, IndexError, ValueError, TypeError, AttributeError, RecursionError,
    MemoryError, OverflowError, struct.error, zipfile.BadZipFile, NotImplementedError, AssertionError, OSError,
    zipfile.LargeZipFile, RuntimeError,
)  # fmt: skip


class _Inert:
    """Takes whatever a pickle does to it, and does nothing."""

    __slots__ = ()

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> _Inert:
        return _Inert()

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Accept an item."""

    def extend(self, values: object) -> None:
        """Accept items."""

    def __hash__(self) -> int:
        return 0


def _inert(*args: object) -> _Inert:
    return _Inert()


class _State(dict):  # type: ignore[type-arg]
    """A mapping that accepts the attributes that an OrderedDict carries, and drops them."""

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """An array being unpickled: empty until its state arrives."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        shape = tuple(int(n) for n in shape)
        if not isinstance(dtype, _Dtype) or any(n < 0 for n in shape):
            raise ValueError("array state is malformed")
        if dtype.is_object:
            if not isinstance(data, list) or len(data) != int(np.prod(shape)):
                raise ValueError("object array and its list differ in length")
            flat = np.empty(len(data), dtype=object)
            for i, item in enumerate(data):
                flat[i] = item
        else:
            flat = np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype=dtype.numpy()).copy()
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """A numpy dtype being unpickled."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *flags: object) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not (code in DTYPES or (code[:1] in "USV" and code[1:].isdigit())):
            raise ValueError(f"dtype {code!r} is not a plain one")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1] if len(state) > 1 else "|"
        self.order = order if order in ("<", ">", "=", "|") else "="

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type, call-overload]


def _reconstruct(*args: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: Any = None) -> Any:
    if dtype.is_object:
        raise ValueError("object scalars are not plain")
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype=dtype.numpy())[0].item()


def _empty_mapping(*args: object) -> _State:
    items = args[0] if args and isinstance(args[0], (list, dict)) else ()
    return _State(items)  # the factory of a defaultdict is not taken over


def _bytes(*args: object) -> bytes:
    if not args:
        return b""
    text = args[0]
    if isinstance(text, str):
        return text.encode("latin1")
    if isinstance(text, (list, tuple)):
        return bytes(text)
    raise ValueError("bytes from an unexpected value")


class _StorageType:
    """Element type of a tensor's storage."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        raise ValueError("a pickle must not change a storage type")


class _Call:
    """A function that a pickle may call, and do nothing else with: BUILD must not set its attributes."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a pickle must not change a function")


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: object
) -> np.ndarray:
    if not isinstance(storage, np.ndarray) or offset < 0 or len(size) != len(stride):
        raise ValueError("tensor without a storage")
    if any(n < 0 for n in (*size, *stride)):
        raise ValueError("negative size or stride")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else offset - 1
    if last >= len(storage):
        raise ValueError(f"a tensor of size {tuple(size)} reaches beyond its storage of {len(storage)} elements")
    if int(np.prod(size, dtype=object)) > max(len(storage), 1):
        raise ValueError(f"a tensor of size {tuple(size)} is larger than its storage of {len(storage)} elements")
    strides = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _rebuild_parameter(data: np.ndarray, *rest: object) -> np.ndarray:
    return data


def _list(items: object = ()) -> list[Any]:
    return list(items) if isinstance(items, (list, tuple, dict, str, bytes)) else []


def _tuple(items: object = ()) -> tuple[Any, ...]:
    return tuple(_list(items))


def _set(items: object = ()) -> set[Any]:
    return set(_list(items))


def _number(value: object = 0, *rest: object) -> object:
    """Numbers as they are: pickles write them without a call, so a text in place of one is not converted."""
    return value


def _range(*args: int) -> list[int]:
    numbers = range(*args)
    if len(numbers) > 50_000_000:
        raise ValueError("range too long")
    return list(numbers)


def _text(*args: object) -> str:
    return " ".join(str(a) for a in args)


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _empty_mapping,
    ("collections", "defaultdict"): _empty_mapping,
    ("builtins", "dict"): _empty_mapping,
    ("builtins", "list"): _list,
    ("builtins", "tuple"): _tuple,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("builtins", "bytes"): _bytes,
    ("builtins", "int"): _number,
    ("builtins", "float"): _number,
    ("builtins", "bool"): _number,
    ("builtins", "complex"): _number,
    ("builtins", "str"): _text,
    ("builtins", "slice"): _inert,
    ("builtins", "range"): _range,
    ("builtins", "xrange"): _range,
    ("_codecs", "encode"): _bytes,
    ("numpy", "ndarray"): _inert,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstruct"): _reconstruct for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _tuple,
    ("torch", "device"): _text,
}
# Objects of these packages carry nothing that is needed: the history, and parameters of unrelated pyro models.
INERT_PACKAGES = ("pandas.", "pyro.", "torch.distributions.")


class _Reader(pickle.Unpickler):
    """Unpickler that knows only stand-ins."""

    def __init__(self, data: bytes, name: str, storage: Callable[[Any], np.ndarray] | None = None) -> None:
        super().__init__(io.BytesIO(data))
        self._name, self._storage = name, storage

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module
        found = ALLOWED.get((module, name))
        if found is not None:
            return found if isinstance(found, type) else _Call(found)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _StorageType(STORAGES[name])
        if f"{module}.".startswith(INERT_PACKAGES) and name.isidentifier():
            return _Inert
        raise UnsafeFile(
            f"{self._name} refers to {module}.{name}, which is not on the list of what a scvi-tools model needs: loading "
            "it could run code. Nothing of it was executed. Do not open this file with pickle or torch.load either."
        )

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise ValueError("a storage outside of a model file")
        return self._storage(pid)


def _finish(value: Any, seen: dict[int, Any], depth: int = 0) -> Any:
    """Plain values from stand-ins, all the way down."""
    if type(value) is str:
        return value
    if depth > 200:
        raise ValueError("nested too deeply")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        value = value.value
    if isinstance(value, (dict, list)) or (isinstance(value, np.ndarray) and value.dtype == object):
        if id(value) in seen:
            return seen[id(value)]
        if isinstance(value, dict):
            out: Any = {}
            seen[id(value)] = out
            out.update({_finish(k, seen, depth + 1): _finish(v, seen, depth + 1) for k, v in value.items()})
            return out
        if isinstance(value, list):
            out = []
            seen[id(value)] = out
            out.extend(_finish(v, seen, depth + 1) for v in value)
            return out
        out = np.empty(value.shape, dtype=object)
        seen[id(value)] = out
        for index in np.ndindex(value.shape):
            out[index] = _finish(value[index], seen, depth + 1)
        return out
    if isinstance(value, (tuple, set, frozenset)):
        if id(value) not in seen:  # shared tuples would otherwise unfold exponentially
            seen[id(value)] = type(value)(_finish(v, seen, depth + 1) for v in value)
        return seen[id(value)]
    if isinstance(value, (_Dtype, _StorageType)) or callable(value):
        return None
    return value


def _load(data: bytes, name: str, storage: Callable[[Any], np.ndarray] | None = None) -> Any:
    try:
        return _finish(_Reader(data, name, storage).load(), {})
    except ScgraftError:
        raise
    except _DAMAGE as error:
        raise CorruptFile(
            f"{name} is damaged or not of the expected format: {type(error).__name__}: {error}"
        ) from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CorruptFile(f"{path.name} cannot be read: {error}.") from error
    if head.startswith(b"version https://git-lfs"):
        raise CorruptFile(
            f"{path.name} is a Git LFS pointer, not the file itself. Download the file (git lfs pull, or load the "
            "repository by its name)."
        )
    return head


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read a file of torch.save (zip format) to plain Python values and numpy arrays.

    Parameters
    ----------
    path
        For example ``model.pt``.

    Returns
    -------
    dict
        Tensors as arrays with memory of their own; pandas objects as inert placeholders.

    Raises
    ------
    UnsafeFile
        The file names a global that is not on the allow-list. Nothing was executed.
    CorruptFile
        Cut, changed, a zip bomb, or not such a file.
    """
    if not _head(path).startswith(b"PK"):
        raise CorruptFile(
            f"{path.name} is not a zip file as torch.save writes it. If it is a model of scvi-tools before 0.8 or in "
            "torch's old format, save it again with a newer version."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.name)
    except ScgraftError:
        raise
    except _DAMAGE as error:
        raise CorruptFile(f"{path.name} is damaged: {type(error).__name__}: {error}") from error


def _read_archive(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [entry for entry in entries if entry.endswith("/data.pkl") and entry.count("/") == 1]
    if len(pickles) != 1:
        raise CorruptFile(f"{name} holds {len(pickles)} data.pkl; a file of torch.save holds one.")
    for info in entries.values():
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > MAX_COMPRESSED:
            raise CorruptFile(
                f"{name} holds a compressed entry of {info.file_size} bytes; torch.save compresses nothing."
            )
    folder = pickles[0].removesuffix("data.pkl")
    if entries[pickles[0]].file_size > MAX_PICKLE:
        raise CorruptFile(f"{name} holds a pickle of {entries[pickles[0]].file_size} bytes, more than {MAX_PICKLE}.")
    order = f"{folder}byteorder"
    if order in entries and archive.read(order).strip() != b"little":
        raise CorruptFile(f"{name} was saved on a big-endian machine, which is not supported.")
    cache: dict[str, np.ndarray] = {}

    def storage(pid: Any) -> np.ndarray:
        kind, type_, key, _, length = pid
        if kind != "storage" or not isinstance(type_, _StorageType) or not isinstance(key, str) or not key.isalnum():
            raise ValueError("a persistent id that is not a storage")
        if key not in cache:
            entry = entries[f"{folder}data/{key}"]
            width = 2 if type_.code == "bf16" else np.dtype(type_.code).itemsize
            if entry.file_size != int(length) * width or entry.file_size > MAX_STORAGE:
                raise ValueError(f"storage {key} has {entry.file_size} bytes, {length} elements were declared")
            raw = archive.read(entry)
            if type_.code == "bf16":
                cache[key] = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                cache[key] = np.frombuffer(raw, dtype=type_.code)
        return cache[key]

    value = _load(archive.read(pickles[0]), name, storage)
    if not isinstance(value, dict):
        raise CorruptFile(f"{name} holds a {type(value).__name__}; a dictionary was expected.")
    return value


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a plain pickle (``attr.pkl`` of scvi-tools before 0.15) through the same allow-list.

    Raises
    ------
    UnsafeFile, CorruptFile
        As :func:`read_torch_file`.
    """
    _head(path)
    if path.stat().st_size > MAX_PICKLE:
        raise CorruptFile(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_PICKLE}.")
    value = _load(path.read_bytes(), path.name)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path.name} holds a {type(value).__name__}; a dictionary was expected.")
    return value

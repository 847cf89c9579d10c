"""Plain values in place of the classes and functions that a model's pickle names.

A pickle is a program that may call any global it names. Here a global is either on the list below, and then it is one of
our own functions that makes a plain value, or the file is refused by name. pandas objects, which only the training history
holds, become inert. torch and pandas are never imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scgraft.errors import UnsafeFile, UnsupportedModel
from scgraft.files.budget import Budget

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?", "UntypedStorage": "u1",
}  # fmt: skip
DTYPES = {"O", "O8", "?", "b1", "b", "B", "M8", *(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8))}
UNITS = ("D", "h", "m", "s", "ms", "us", "ns")  # of a date, as numpy writes them
RESOLUTIONS = {7: "s", 8: "ms", 9: "us", 10: "ns"}  # of a date, as pandas writes them
MOST_NESTED = 200  # of scvi-tools' own registries: less than ten
POINTER, NUMBER = 8, 32  # bytes of an entry of a list, and of a Python number


class Inert:
    """Takes whatever a pickle does to it, and does nothing."""

    __slots__ = ()


INERT = Inert()


@dataclass(frozen=True)
class Function:
    """A function that a pickle may call, and do nothing else with."""

    call: Callable[..., Any]


@dataclass(frozen=True)
class StorageType:
    """Element type of a tensor's storage."""

    code: str


class Array:
    """An array being read: empty until its state arrives."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any, budget: Budget) -> None:
        """Take the array's shape, type and content."""
        _, shape, dtype, fortran, data = state
        shape = tuple(int(n) for n in shape)
        if not isinstance(dtype, Dtype) or any(n < 0 for n in shape):
            raise ValueError("array state is malformed")
        if dtype.is_object:
            if not isinstance(data, list) or len(data) != int(np.prod(shape, dtype=object)):
                raise ValueError("object array and its list differ in length")
            budget.spend(POINTER * len(data))
            flat = np.empty(len(data), dtype=object)
            for i, item in enumerate(data):
                flat[i] = item
        else:
            flat = np.frombuffer(as_bytes(budget, data), dtype=dtype.numpy()).copy()
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class Dtype:
    """A numpy dtype being read."""

    __slots__ = ("code", "order", "unit")

    def __init__(self, code: object) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not (code in DTYPES or (code[:1] in "USV" and code[1:].isdigit())):
            raise ValueError("a dtype that is not a plain one")
        self.code, self.order, self.unit = code, "=", "ns"

    def build(self, state: Any) -> None:
        """Take the byte order, and the unit of a date."""
        order = state[1] if len(state) > 1 else "|"
        self.order = order if order in ("<", ">", "=") else "="
        if self.code == "M8":
            unit = state[8][1][0]
            self.unit = unit.decode("ascii") if isinstance(unit, bytes) else unit
            if self.unit not in UNITS or tuple(state[8][1][1:]) != (1, 1, 1):
                raise ValueError("dates in an unusual unit")

    @property
    def is_object(self) -> bool:
        """Whether its values are Python objects."""
        return self.code.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        """The dtype itself."""
        code = f"M8[{self.unit}]" if self.code == "M8" else self.code
        return np.dtype(code).newbyteorder(self.order)  # type: ignore[arg-type, call-overload]


def as_bytes(budget: Budget, data: Any) -> bytes:
    """Bytes from bytes, from the text that Python 2 would hold, or from a list of numbers."""
    budget.spend(len(data))
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, (bytes, bytearray, list, tuple)):
        return bytes(data)
    raise ValueError("bytes from an unexpected value")


def _bytes(budget: Budget, data: Any = b"", *rest: Any) -> bytes:
    return as_bytes(budget, data)


def as_key(value: Any) -> Any:
    """A key of a dictionary or member of a set: only what is hashed at once, and does not collide at will."""
    if type(value) in (str, bytes, float, bool, type(None)) or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if type(value) is tuple and len(value) < 8 and all(type(item) is str for item in value):
        return value
    raise ValueError("a key that is no plain text or number")


def _scalar(budget: Budget, dtype: Dtype, data: Any = None) -> Any:
    if dtype.is_object:
        raise ValueError("object scalars are not plain")
    value = np.frombuffer(as_bytes(budget, data), dtype=dtype.numpy())[0]
    return value if dtype.code == "M8" else value.item()


def _dictionary(budget: Budget, *args: Any) -> dict[Any, Any]:
    """Of the items that are given; the factory of a defaultdict is not taken over."""
    items = args[0] if args and isinstance(args[0], (dict, list)) else ()
    budget.spend(NUMBER * len(items))
    pairs = items.items() if isinstance(items, dict) else items
    return {as_key(key): value for key, value in pairs}


def _list(budget: Budget, items: Any = ()) -> list[Any]:
    if not isinstance(items, (list, tuple, dict, str, bytes, set)):
        return []
    budget.spend(POINTER * len(items))
    return list(items)


def _tuple(budget: Budget, items: Any = ()) -> tuple[Any, ...]:
    return tuple(_list(budget, items))


def _set(budget: Budget, items: Any = ()) -> set[Any]:
    return {as_key(item) for item in _list(budget, items)}


def _number(budget: Budget, value: Any = 0, *rest: Any) -> Any:
    """Numbers as they are: pickles write them without a call, so a text in place of one is not converted."""
    return value


def _range(budget: Budget, *args: int) -> list[int]:
    numbers = range(*args)
    budget.spend(NUMBER * len(numbers))
    return list(numbers)


def _text(budget: Budget, *args: Any) -> str:
    """The name of a device, for example."""
    words = [str(arg) for arg in args if isinstance(arg, (str, int))]
    budget.spend(sum(map(len, words)))
    return " ".join(words)


def _interval(budget: Budget, left: Any, right: Any, closed: Any = "right") -> str:
    """An interval of pandas, as pandas writes it."""
    if not all(isinstance(end, (int, float, str)) for end in (left, right)):
        raise ValueError("an interval of no numbers")
    begin, end = "[" if closed in ("left", "both") else "(", "]" if closed in ("right", "both") else ")"
    return f"{begin}{_text(budget, str(left))}, {_text(budget, str(right))}{end}"


def _date(budget: Budget, value: Any, frequency: Any = None, zone: Any = None, resolution: Any = 10) -> Any:
    """A date of pandas; one in a time zone is not read."""
    return INERT if zone is not None else np.array(int(value), f"M8[{RESOLUTIONS.get(resolution, 'ns')}]")[()]


def _tensor(
    budget: Budget, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> Any:
    if not isinstance(storage, np.ndarray) or offset < 0 or len(size) != len(stride):
        raise ValueError("tensor without a storage")
    if any(n < 0 for n in (*size, *stride)):
        raise ValueError("negative size or stride")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else offset - 1
    if last >= len(storage):
        raise ValueError(f"a tensor of size {tuple(size)} reaches beyond its storage of {len(storage)} elements")
    number = int(np.prod(size, dtype=object))
    if number > max(len(storage), 1):
        raise ValueError(f"a tensor of size {tuple(size)} is larger than its storage of {len(storage)} elements")
    budget.spend(number * storage.itemsize)
    strides = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _first(budget: Budget, value: Any, *rest: Any) -> Any:
    return value


def _array(budget: Budget, *args: Any) -> Array:
    return Array()


def _dtype(budget: Budget, code: Any, *flags: Any) -> Dtype:
    return Dtype(code)


def _file_in_a_file(budget: Budget, *args: Any) -> Any:
    raise UnsafeFile(
        "The file calls torch.storage._load_from_bytes, which opens another file within it: only a plain pickle that scArches "
        "wrote (attr.pkl) has such a thing. Nothing of it was executed. Do not open it with pickle or torch.load either."
    )


# How Python's own pickle writes a tensor; the machine reads its argument itself, where a file may have one at all.
STORAGE_FILE = Function(_file_in_a_file)
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "defaultdict"): _dictionary,
    ("builtins", "dict"): _dictionary,
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
    ("builtins", "range"): _range,
    ("builtins", "xrange"): _range,
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _dtype,
    **{(module, "_reconstruct"): _array for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch", "Size"): _tuple,
    ("torch", "device"): _text,
    ("pandas._libs.interval", "Interval"): _interval,
    ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp"): _date,
    ("pandas._libs.tslibs.timestamps", "Timestamp"): _date,
}
CLASSES = {("builtins", "slice"), ("numpy", "ndarray"), ("numpy", "matrix")}
# Objects of these packages carry nothing that is needed: the history, and parameters of unrelated pyro models.
INERT_PACKAGES = ("pandas.", "pyro.", "torch.distributions.")
# Activations and the like, given as an option: nothing that runs code, but numbers would not be the model's.
LAYERS = ("torch.nn.", "torch._C._nn.", "torch.functional.")


def stand_in(module: str, name: str, file: str) -> Any:
    """What stands for a global that a file names.

    Raises
    ------
    UnsafeFile
        It is not on the list.
    UnsupportedModel
        It is a layer of torch: harmless, but an option that is not read.
    """
    module = "builtins" if module == "__builtin__" else module
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return STORAGE_FILE
    if (module, name) in ALLOWED:
        return Function(ALLOWED[module, name])
    if module in ("torch", "torch.storage") and name in STORAGES:
        return StorageType(STORAGES[name])
    if (module, name) in CLASSES or (f"{module}.".startswith(INERT_PACKAGES) and name.isidentifier()):
        return INERT
    known = f"{module}.{name}".encode("unicode_escape").decode()[:120]
    if f"{module}.".startswith(LAYERS) and name.isidentifier() and not name.startswith("_"):
        raise UnsupportedModel(
            f"{file} was made with {known} as an option. scgraft reads no options that are code, and without it the numbers "
            "would not be the model's, so it is not loaded."
        )
    raise UnsafeFile(
        f"{file} refers to {known}, which is not on the list of what a scvi-tools model needs: loading it could run code. "
        "Nothing of it was executed. Do not open this file with pickle or torch.load either."
    )


def finish(value: Any, seen: dict[int, Any], depth: int = 0) -> Any:
    """Plain values from stand-ins, all the way down; `seen` holds by identity what was finished already."""
    if type(value) is str:
        return value
    if depth > MOST_NESTED:
        raise ValueError("nested too deeply")
    if isinstance(value, Array):
        if value.value is None:
            raise ValueError("an array without content")
        value = value.value
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, dict):
        found: Any = seen.setdefault(id(value), {})
        found.update({key: finish(item, seen, depth + 1) for key, item in value.items()})
        return found
    if isinstance(value, list):
        found = seen.setdefault(id(value), [])
        found.extend(finish(item, seen, depth + 1) for item in value)
        return found
    if isinstance(value, np.ndarray) and value.dtype == object:
        found = seen.setdefault(id(value), np.empty(value.shape, dtype=object))
        found.flat = [finish(item, seen, depth + 1) for item in value.flat]
        return found
    if isinstance(value, tuple):  # shared tuples would otherwise unfold exponentially
        return seen.setdefault(id(value), tuple(finish(item, seen, depth + 1) for item in value))
    return None if isinstance(value, (Dtype, StorageType, Function, Inert)) else value

"""The hash of a value: equal for equal content, whatever made it; of arrays every byte counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def content_hash(value: Any) -> str:
    """sha256, in hex, of a frozen value, an array, or a collection of them.

    Raises
    ------
    TypeError
        Something in it is neither of these nor plain text or numbers, so that what it holds is not known.
    """
    digest = hashlib.sha256()
    for part in _bytes(value):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif hasattr(value, "indptr") and hasattr(value, "indices"):
        yield from _bytes([value.shape, value.data, value.indices, value.indptr])
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        yield from _bytes({field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, Mapping):
        yield f"mapping of {len(value)}".encode()
        for key, inner in value.items():
            yield from _bytes(key)
            yield from _bytes(inner)
    elif isinstance(value, tuple | list) or isinstance(value, np.ndarray):
        yield f"{len(value)} in order".encode()
        for inner in value:
            yield from _bytes(inner)
    elif value is None or isinstance(value, str | bytes | bool | int | float):
        yield f"{type(value).__name__} {value!r}".encode()
    else:
        raise TypeError(f"A {type(value).__name__} has no hash of its content.")

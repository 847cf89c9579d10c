"""Arrays of a frozen value cannot be written to: the value has views of them that are read-only, and no copy.

It stands here, below :mod:`scgraft.values`, because results of numerics (neighbours, clusters) are parts of those values.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np


def seal_fields(value: Any) -> None:
    """Make the arrays of a frozen dataclass read-only, those in sparse matrices, mappings and tuples too; called by ``__post_init__``.

    Whoever made an array can still write to it through the name that it had before; a value whose arrays nobody else holds cannot
    change. Tables (pandas) are left as they are.
    """
    for field in fields(value):
        given = getattr(value, field.name)
        made = sealed(given)
        if made is not given:
            object.__setattr__(value, field.name, made)


def sealed(value: Any) -> Any:
    """The same with read-only views in place of arrays that can be written to; itself where there are none."""
    if isinstance(value, np.ndarray):
        if not value.flags.writeable:
            return value
        view = value.view()
        view.flags.writeable = False
        return view
    if hasattr(value, "indptr") and isinstance(getattr(value, "data", None), np.ndarray):
        parts = {name: sealed(getattr(value, name)) for name in ("data", "indices", "indptr")}
        if all(part is getattr(value, name) for name, part in parts.items()):
            return value
        made = copy.copy(value)  # shares its arrays
        for name, part in parts.items():
            setattr(made, name, part)
        return made
    if isinstance(value, Mapping):
        held = {name: sealed(item) for name, item in value.items()}
        return value if all(item is value[name] for name, item in held.items()) else held
    if type(value) is tuple:
        items = tuple(map(sealed, value))
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value

"""The storage of one tensor within a plain pickle, as torch wrote files before its zip format.

A tensor that Python's own pickle writes (the prototypes in ``attr.pkl`` of scArches) is a call of
``torch.storage._load_from_bytes`` with a whole file as its argument. It is read here, by the same machine and out of the same
budget as the pickle around it. Source of the layout: ``torch.save`` without its zip format: five pickles (a magic number, a
version, facts about the machine, the object, the keys of its storages), then length and content of each storage.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scgraft.files.budget import Budget
from scgraft.reference.machine import Machine, load
from scgraft.reference.stand_ins import StorageType

# From torch.serialization, whose format this is.
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
LENGTH = 8  # bytes that tell how many elements a storage has, by the same format


def read_storage(data: Any, name: str, budget: Budget) -> np.ndarray:
    """Elements (n,) of the storage that such a file holds; a file within it is refused.

    Parameters
    ----------
    data
        The file.
    name
        Of the file around it, for errors.
    budget
        Of the file around it.

    Raises
    ------
    UnsafeFile, CorruptFile
        As :func:`scgraft.reference.unpickle.read_pickle`.
    ValueError
        It is not such a file, or holds more than one storage.
    """
    if not isinstance(data, bytes):
        raise ValueError("a file within the file that is no bytes")
    budget.spend(len(data))
    declared: list[tuple[str, str, int]] = []

    def storage(pid: Any) -> None:
        kind, type_, key, _, length, *_ = pid
        if kind != "storage" or not isinstance(type_, StorageType) or type_.code == "bf16" or type(length) is not int:
            raise ValueError("a persistent id that is not a storage")
        declared.append((type_.code, key, length))

    at, found = 0, []
    for _ in range(5):
        machine = Machine(data, name, budget, storage)
        machine.at = at
        found.append(load(machine))
        at = machine.at
    if found[:2] != [MAGIC, VERSION] or len(declared) != 1 or found[4] != [declared[0][1]]:
        raise ValueError("a file within the file that is not the storage of one tensor")
    code, _, length = declared[0]
    raw, width = data[at + LENGTH :], np.dtype(code).itemsize
    if int.from_bytes(data[at : at + LENGTH], "little") != length or len(raw) != length * width:
        raise ValueError(f"a storage of {len(raw)} bytes, where {length} elements were declared")
    return np.frombuffer(raw, code)

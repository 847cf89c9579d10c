"""The registry and attributes of a model file, read against what scvi-tools writes: types, lengths and names.

A file may hold anything in their place. Everything downstream relies on what is checked here, once; whatever is not as
expected is a `CorruptFile` that says where it is, what was found and what was expected.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.values.names import level_name, shown

SPLITS = ("train_indices_", "validation_indices_", "test_indices_")
# Levels are what pandas takes as categories of a column and scvi-tools can save.
LEVELS = (str, bool, int, float, np.generic, datetime.datetime, datetime.date)


def read_registry(raw: object, name: str) -> dict[str, Any]:
    """``registry_`` with every entry that is used checked: plain mappings, texts, and levels as one-dimensional arrays.

    Parameters
    ----------
    raw
        What the file holds in its place.
    name
        Of the file, for the error.

    Raises
    ------
    CorruptFile
        An entry is not what scvi-tools writes there.
    """
    where = f"the registry of {name}"
    found = mapping(raw, where)
    fields = mapping(found.get("field_registries"), f"field_registries in {where}")
    told = {
        key: text(found.get(key), f"{key} in {where}") for key in ("scvi_version", "model_name", "setup_method_name")
    }
    setup = mapping(found.get("setup_args"), f"setup_args in {where}")
    for key in ("batch_key", "labels_key", "size_factor_key", "layer"):
        text(setup.get(key), f"setup_args[{key!r}] in {where}")
    return {
        **{key: value for key, value in told.items() if value is not None},
        "setup_args": setup,
        "field_registries": {key: _field(key, entry, where) for key, entry in fields.items()},
    }


def _field(key: str, raw: object, where: str) -> dict[str, Any]:
    where = f"field {key!r} in {where}"
    entry = mapping(raw, where)
    place = mapping(entry.get("data_registry"), f"data_registry of {where}")
    for part in ("attr_name", "attr_key", "mod_key"):
        text(place.get(part), f"{part} of {where}")
    state = mapping(entry.get("state_registry"), f"state_registry of {where}")
    stats = mapping(entry.get("summary_stats"), f"summary_stats of {where}")
    for part, number in stats.items():
        whole(number, f"{part} of {where}")
    return {"data_registry": place, "state_registry": _state(state, where), "summary_stats": stats}


def _state(state: dict[str, Any], where: str) -> dict[str, Any]:
    """What a field remembers of its data, with the entries that name levels and columns checked."""
    found = dict(state)
    if "original_key" in state:
        text(state["original_key"], f"original_key of {where}")
    if state.get("unlabeled_category") is not None:
        level(state["unlabeled_category"], f"unlabeled_category of {where}")
    if state.get("categorical_mapping") is not None:
        found["categorical_mapping"] = levels(state["categorical_mapping"], f"categorical_mapping of {where}")
        if len(found["categorical_mapping"]) > 1 and state.get("original_key") is None:
            _wrong(f"original_key of {where}", None, "the name of the obs column of its levels")
    if state.get("columns") is not None:
        found["columns"] = names(state["columns"], f"columns of {where}")
    if state.get("field_keys") is not None:
        found["field_keys"] = names(state["field_keys"], f"field_keys of {where}")
        # A data module of scvi-tools calls it "mapping".
        saved = mapping(state.get("mappings", state.get("mapping")), f"mappings of {where}")
        missing = [key for key in found["field_keys"] if key not in saved]
        if missing:
            _wrong(
                f"mappings of {where}", list(saved), f"one for each of its columns ({', '.join(missing)} is missing)"
            )
        found["mappings"] = {key: levels(value, f"mappings[{key!r}] of {where}") for key, value in saved.items()}
    return found


def read_attributes(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Options of the constructor (``init_params_``) and the split of the cells, where the file has them."""
    found: dict[str, Any] = {}
    if raw.get("init_params_") is not None:
        found["init_params_"] = mapping(raw["init_params_"], f"init_params_ of {name}")
        flat_options(found["init_params_"])
    for key in SPLITS:
        if raw.get(key) is not None:
            found[key] = _positions(raw[key], f"{key} of {name}")
    return found


def flat_options(init: object) -> dict[str, Any]:
    """Options of the model's constructor, from ``init_params_`` of any version.

    Raises
    ------
    CorruptFile
        It is not a dictionary of options.
    """
    where = "init_params_ of the model"
    found = mapping(init, where)
    flat: dict[str, Any] = {}
    if "non_kwargs" in found or "kwargs" in found:
        flat = mapping(found.get("non_kwargs"), f"non_kwargs in {where}")
        found = mapping(found.get("kwargs"), f"kwargs in {where}")
    for name, value in found.items():
        flat |= mapping(value, f"{name} in {where}") if isinstance(value, dict) else {name: value}
    return flat


def mapping(value: object, where: str) -> dict[str, Any]:
    """A dictionary with texts as keys, as a new one; nothing stands for an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _wrong(where, value, "a dictionary with names as keys")
    return dict(value)


def text(value: object, where: str) -> str | None:
    """A text, or None."""
    if value is not None and not isinstance(value, str):
        _wrong(where, value, "a text")
    return value


def whole(value: object, where: str) -> int:
    """A number of something."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        _wrong(where, value, "a whole number of at least 0")
    return int(value)


def names(value: object, where: str) -> list[str]:
    """A list of different names."""
    found = texts(value, where)
    if len(set(found)) < len(found):
        _wrong(where, value, "a list of different names")
    return found


def texts(value: object, where: str) -> list[str]:
    """A list of texts."""
    found = _items(value)
    if found is None or not all(isinstance(item, str) for item in found):
        _wrong(where, value, "a list of texts")
    return [str(item) for item in found]


def _items(value: object) -> list[Any] | None:
    """Items of a list or of a one-dimensional array."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim == 1 else None
    return list(value) if isinstance(value, (list, tuple)) else None


def level(value: object, where: str) -> object:
    """One level of a categorical column."""
    if not isinstance(value, LEVELS) or value != value:  # NaN is no level
        _wrong(where, value, "a name or a number")
    return value


def levels(value: object, where: str) -> np.ndarray:
    """Levels of a categorical column in code order, (n,): texts, numbers, or dates."""
    found = _items(value)
    if found is None:
        _wrong(where, value, "a list of levels")
    found_names = [level_name(level(item, where)) for item in found]
    if len(set(found_names)) < len(found_names):
        _wrong(where, Counter(found_names).most_common(1)[0][0], "different names; this one stands more than once")
    if isinstance(value, np.ndarray):
        return value
    kept = np.array(found) if found and all(type(item) is int for item in found) else np.empty(len(found), object)
    kept[:] = found
    return kept


def _positions(value: object, where: str) -> np.ndarray:
    """Positions of cells, (n,) int64."""
    found = _items(value)
    if found is None or not all(isinstance(n, (int, np.integer)) and n >= 0 for n in found):
        _wrong(where, value, "positions of cells")
    return np.array(found, np.int64)


def _wrong(where: str, value: object, expected: str) -> NoReturn:
    raise CorruptFile(
        f"{where[0].upper()}{where[1:]} is {shown(value)}; {expected} was expected. The file was changed, or was not "
        "written by scvi-tools: download it again."
    )

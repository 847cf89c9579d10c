"""Documents in which hypothesis puts anything anywhere: each is read as it is meant, or refused by scgraft's own errors.

What random damage rarely makes: values of the right kind in the wrong place, deep nesting, names that are almost right.
"""

import copy
import hashlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scgraft.errors import ScgraftError
from scgraft.files import schema
from scgraft.files.budget import Budget
from scgraft.graft.store import load_graft
from scgraft.mapping import frozen_store
from scgraft.reference.saved_registry import flat_options, read_attributes, read_registry
from scgraft.reference.scvi_format import _read_metadata
from scgraft.results.parts import read_list
from scgraft.results.stored import written
from scgraft.results.summary_format import SUMMARY, parse_summary
from scgraft.testing.tiny_hub import make_attributes, make_metadata
from scgraft.testing.tiny_model import TinyConfig

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
# A model file also holds arrays, tuples, sets and bytes, and keys that are no text.
KEYS = st.text(max_size=5) | st.integers() | st.none()
PICKLED = st.recursive(
    PLAIN
    | st.binary(max_size=4)
    | st.sampled_from([np.zeros(2), np.array("a"), np.array([None], object), np.float32(2), {1}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | st.tuples(inner, inner),
)
many = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def places(value, path=()):
    """Every place of a document: the keys that lead there."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def put(document, path, value):
    """A copy of a document with another value in one place."""
    if not path:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def changed(data, document, values=JSON):
    """The document with one to three places filled anew, by a value of hypothesis or by one from elsewhere in it."""
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(document))
        path, other = data.draw(st.sampled_from(found)), data.draw(st.sampled_from(found))
        new = document
        for key in other:
            new = new[key]
        document = put(document, path, data.draw(st.just(new) | values))
    return document


def named(read):
    """What was read; None where it was refused by name. Anything else that is raised fails the test."""
    try:
        return read()
    except ScgraftError:
        return None


@many
@given(st.data())
def test_a_summary(sound, tmp_path, data):
    document = changed(data, json.loads((sound / "report" / SUMMARY).read_text()))
    (tmp_path / SUMMARY).write_text(json.dumps(document))
    found = named(lambda: parse_summary(tmp_path / SUMMARY, written))
    if found is not None:
        schema.text(found["base"]["repo"], "repo")


@many
@given(st.data())
def test_a_graft_with_a_checksum_of_its_own(sound, tmp_path, data):
    document = changed(data, json.loads((sound / "graft" / "graft.json").read_text()))
    if isinstance(document, dict):
        content = {key: value for key, value in document.items() if key != "checksum"}
        document = document | {"checksum": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}
    (tmp_path / "graft.json").write_text(json.dumps(document))
    (tmp_path / "graft.safetensors").write_bytes((sound / "graft" / "graft.safetensors").read_bytes())
    found = named(lambda: load_graft(tmp_path))
    if found is not None:
        assert all(np.isfinite(row).all() for row in found.rows.values()) and repr(found)


@many
@given(st.data())
def test_what_a_run_in_parts_keeps(sound, tmp_path, data):
    frozen = changed(data, json.loads((sound / "frozen" / frozen_store.DOCUMENT).read_text()))
    try:
        schema.parse(json.dumps(frozen), frozen_store._written(), "frozen")
    except schema.Unfit:
        pass
    (tmp_path / "parts.json").write_text(json.dumps(changed(data, {"00000.npz": "0" * 64})))
    named(lambda: read_list(tmp_path / "parts.json"))


@many
@given(st.data())
def test_the_hubs_metadata(tmp_path, data):
    (tmp_path / "m.json").write_text(json.dumps(changed(data, make_metadata(TinyConfig()))))
    found = named(lambda: _read_metadata(tmp_path / "m.json", Budget(0, "m.json")))
    assert found is None or all(value is None or isinstance(value, str) for value in found.values())


def plain(value):
    """A registry as nested dictionaries and lists: what a pickle gives."""
    if hasattr(value, "items"):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value.tolist()] if isinstance(value, np.ndarray) else value


CONFIG = TinyConfig(
    model="SCANVI", covariates={"donor": ("a", "b")}, continuous=("age",), minified="latent_posterior_parameters"
)


@pytest.mark.parametrize("part", ["registry_", "init_params_", "attributes"])
@many
@given(data=st.data())
def test_what_a_model_file_holds_beside_its_tensors(part, data):
    attributes = plain(make_attributes(CONFIG, list(CONFIG.labels)))
    document = changed(data, attributes if part == "attributes" else attributes[part], PICKLED)
    if part == "registry_":
        named(lambda: read_registry(document, "model.pt"))
    elif part == "init_params_":
        named(lambda: flat_options(document))
    elif isinstance(document, dict):
        named(lambda: read_attributes(document, "model.pt"))

"""Nothing that a value holds can be written to, and a value holds no copies."""

import copy
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix, issparse

import scgraft
from scgraft.labels.explain import explain
from scgraft.numerics.sealed import sealed
from scgraft.testing import example
from scgraft.values.reference import Latent


def arrays(value: Any, place: str) -> Iterator[tuple[str, np.ndarray]]:
    """Every array that a value holds, in whatever it holds, by its place."""
    if isinstance(value, np.ndarray):
        yield place, value
    elif issparse(value):
        for name in ("data", "indices", "indptr"):
            yield f"{place}.{name}", getattr(value, name)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from arrays(getattr(value, field.name), f"{place}.{field.name}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from arrays(item, f"{place}[{name!r}]")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from arrays(item, f"{place}[{i}]")


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """Values of every kind, of a real mapping."""
    folder, adata = example()
    reference = scgraft.load_reference(folder)
    query = scgraft.align(reference, adata, batch_key="batch")
    mapped = scgraft.map_query(reference, adata, batch_key="batch")
    half = adata.obs_names[:20]
    return {
        "reference": reference,
        "query": query,
        "mapped": mapped,
        "atlas": reference.latent.atlas,
        "index": reference.latent.index,
        "subset": scgraft.reference_cells(reference).take(np.arange(5)),
        "cells": scgraft.query_cells(reference, query, mapped.graft),
        "merged": scgraft.merge_grafts([mapped.graft]),
        "explanation": explain(reference, mapped, half[0], adata=adata),
        "described": scgraft.describe(reference),
        "check": scgraft.check(reference, adata, batch_key="batch"),
        "replaced": replace(mapped.latent, mean=np.array(mapped.latent.mean)),
    }


def test_no_array_of_a_public_value_can_be_written_to(values):
    found = dict(pair for name, value in values.items() for pair in arrays(value, name))
    open_ones = sorted(place for place, array in found.items() if array.flags.writeable)
    assert open_ones == [] and len(found) > 80
    kinds = {type(value).__name__ for value in values.values()}
    assert {"Reference", "Query", "MappedQuery", "LatentCells", "Graft", "Latent"} <= kinds
    for place in ("mapped.latent.mean", "query.counts.data", "mapped.labels['cell_type'].votes['genes']"):
        with pytest.raises(ValueError, match="read-only"):
            found[place][...] = 0


def test_a_value_shares_the_memory_of_what_it_was_made_of():
    points = np.zeros((4, 2), np.float32)
    latent = Latent(points, points, np.array(list("abcd")))
    assert np.shares_memory(latent.mean, points) and points.flags.writeable
    assert replace(latent, cells=latent.cells).mean is latent.mean
    assert not copy.deepcopy(latent).mean.any() and pickle.loads(pickle.dumps(latent)).mean.shape == (4, 2)


@given(st.integers(0, 5), st.sampled_from([csr_matrix, csr_array]))
def test_sealed_is_the_same_value_and_leaves_what_was_given_alone(n, kind):
    given_ = {
        "array": np.arange(n),
        "sparse": kind(np.eye(n + 1, dtype=np.float32)),
        "deep": {"er": (np.ones(n), "text", None)},
        "plain": {"a": 1},
    }
    made = sealed(given_)
    assert all(not array.flags.writeable for _, array in arrays(made, ""))
    assert all(array.flags.writeable for _, array in arrays(given_, ""))
    for (a, one), (b, other) in zip(arrays(made, ""), arrays(given_, ""), strict=True):
        assert a == b and np.array_equal(one, other) and (not one.size or np.shares_memory(one, other))
    assert type(made["sparse"]) is kind and made["plain"] is given_["plain"] and sealed(made) is made

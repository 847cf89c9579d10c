"""Hashes of values: of their content, all of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scgraft.files.content import content_hash


@dataclass(frozen=True)
class Value:
    array: np.ndarray
    inner: dict
    sparse: csr_matrix
    name: str = "a"


def value():
    return Value(
        np.arange(5000, dtype=np.float32),
        {"b": (1.0, None), "c": np.array(["x", "y"], object)},
        csr_matrix(np.eye(3, dtype=np.float32)),
    )


def test_equal_values_have_one_hash():
    assert content_hash(value()) == content_hash(value())


@pytest.mark.parametrize("place", range(0, 5000, 617))
def test_every_number_of_a_large_array_counts(place):
    changed = value()
    changed.array[place] += 1e-3
    assert content_hash(changed) != content_hash(value())


def test_every_field_counts():
    sparse = value().sparse.copy()
    sparse.data[1] = 2
    others = [
        replace(value(), name="b"),
        replace(value(), inner={"b": (1.0, None), "c": np.array(["x", "z"], object)}),
        replace(value(), inner={"b": (1.0, 0), "c": np.array(["x", "y"], object)}),
        replace(value(), sparse=sparse),
        replace(value(), array=value().array.astype(np.float64)),
        replace(value(), array=value().array.reshape(50, 100)),
    ]
    assert len({content_hash(v) for v in [value(), *others]}) == len(others) + 1


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_different_lists_have_different_hashes(one, other):
    assert (content_hash(one) == content_hash(other)) == (one == other)


def test_what_cannot_be_looked_into_is_refused():
    with pytest.raises(TypeError, match="no hash"):
        content_hash([object()])

"""Counts that are kept between the two readings of a file come back bit for bit, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from scgraft.query.kept import KeptCounts

VALUES = st.sampled_from([1.0, 2.0, 254.0, 255.0, 256.0, 70_000.0, 2.0**25, 0.5, -3.0])


@st.composite
def matrices(draw):
    n, width = draw(st.integers(1, 30)), draw(st.sampled_from([1, 7, 70_000]))
    cells = []
    for _ in range(n):
        genes = draw(st.lists(st.integers(0, width - 1), max_size=5, unique=True))
        cells.append((genes, draw(st.lists(VALUES, min_size=len(genes), max_size=len(genes)))))
    ends = np.cumsum([0] + [len(genes) for genes, _ in cells])
    data = np.array([v for _, values in cells for v in values], np.float32)
    return sparse.csr_matrix(
        (data, np.array([g for genes, _ in cells for g in genes], np.int32), ends), shape=(n, width)
    )


def written(folder, counts, each):
    kept = KeptCounts(folder, each)
    for start in range(0, counts.shape[0], each):
        rows = slice(start, min(start + each, counts.shape[0]))
        assert kept.write(rows, counts[rows])
    return kept


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("data", "indices", "indptr")
    )


@given(counts=matrices(), each=st.integers(1, 12), data=st.data())
def test_any_run_of_cells_comes_back_bit_for_bit(tmp_path_factory, counts, each, data):
    kept = written(tmp_path_factory.mktemp("kept"), counts, each)
    start = data.draw(st.integers(0, counts.shape[0] - 1))
    stop = data.draw(st.integers(start + 1, counts.shape[0]))
    found = kept.read(slice(start, stop), counts.shape[1])
    assert found.shape == (stop - start, counts.shape[1]) and same(found, counts[start:stop])


@pytest.fixture
def counts():
    return sparse.random(
        20, 9, 0.4, "csr", np.float32, np.random.default_rng(0), data_rvs=lambda n: np.arange(1, n + 1)
    )


def test_what_is_missing_or_damaged_is_not_there(tmp_path, counts):
    kept = written(tmp_path / "kept", counts, 8)
    path = tmp_path / "kept" / "000001.npz"
    whole = path.read_bytes()
    assert kept.read(slice(8, 16), 5) is None  # of other genes
    assert kept.read(slice(16, 21), 9) is None  # more cells than there are
    path.write_bytes(whole[:-60])
    assert kept.read(slice(0, 8), 9) is not None and kept.read(slice(0, 16), 9) is None
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    found = kept.read(slice(8, 16), 9)
    assert found is None or same(found, counts[8:16])
    path.unlink()
    assert kept.read(slice(8, 16), 9) is None


def test_a_disk_that_cannot_take_them_is_no_error(tmp_path, counts, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    assert not KeptCounts(tmp_path / "file", 20).write(slice(0, 20), counts)
    kept = KeptCounts(tmp_path / "not" / "there", 20)
    assert kept.has_room(1000) and not kept.has_room(1e18)
    monkeypatch.setattr("shutil.disk_usage", lambda path: (_ for _ in ()).throw(OSError("no such call")))
    assert kept.has_room(1e18)

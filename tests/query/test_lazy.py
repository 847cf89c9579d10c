"""A backed AnnData, whole or a view, as cells that are read in runs: those of the file, in the view's order."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from scgraft.errors import BadOption, NotCounts, QueryError
from scgraft.query import cell_file, lazy
from scgraft.query.lazy import for_workers, in_memory, is_lazy, lazy_bytes, open_lazy
from scgraft.query.on_disk import OnDisk

N, M = 40, 10


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(0.7, 9, (N, M))).astype(np.float32)


def backed(folder, counts, place="X", kind=csr_matrix):
    obs = pd.DataFrame(
        {"batch": np.repeat(["one", "two"], N // 2), "note": range(N)}, index=[f"c{i}" for i in range(N)]
    )
    var = pd.DataFrame(index=[f"g{j}" for j in range(M)])
    adata = anndata.AnnData(kind(counts if place == "X" else -counts), obs=obs, var=var)
    if place == "raw/X":
        adata.raw = anndata.AnnData(kind(counts), obs=obs, var=var)
        adata = adata[:, :4].copy()
    elif place != "X":
        adata.layers["counts"] = kind(counts)
    adata.write_h5ad(folder / "q.h5ad")
    return anndata.read_h5ad(folder / "q.h5ad", backed="r")


@pytest.mark.parametrize("place", ["X", "layers/counts", "raw/X"])
def test_runs_of_a_backed_query_are_its_cells(tmp_path, monkeypatch, counts, place):
    monkeypatch.setattr(cell_file, "BLOCK", 7)
    adata = backed(tmp_path, counts, place)
    assert is_lazy(adata) and in_memory(adata) is adata
    file = open_lazy(adata, ["batch", "nothing"])
    assert (file.place, file.n_cells, list(file.obs)) == (place, N, ["batch"])
    if place != "layers/counts":  # layers of a backed file are in memory
        assert for_workers(file) is file
    part = file.read(slice(6, 31))
    assert np.array_equal(part.X.toarray(), counts[6:31]) and part.obs_names.tolist() == [f"c{i}" for i in range(6, 31)]
    assert part.var_names.tolist() == [f"g{j}" for j in range(M)]
    adata.file.close()


@pytest.mark.parametrize("place", ["X", "raw/X"])
def test_a_view_has_its_own_cells_in_its_own_order(tmp_path, counts, place):
    adata = backed(tmp_path, counts, place)
    rows = [30, 3, 4, 17]
    view = adata[rows, [2, 0]] if place == "X" else adata[rows]
    file = open_lazy(view, ["batch"])
    assert file.place == place and file.n_cells == 4 and file.obs["batch"].tolist() == ["two", "one", "one", "one"]
    part = file.read(slice(0, 4))
    assert part.obs_names.tolist() == [f"c{i}" for i in rows]
    expected = counts[rows][:, [2, 0]] if place == "X" else counts[rows]
    assert np.array_equal(part.X.toarray(), expected) and len(part.var) == expected.shape[1]
    whole, share = lazy_bytes(adata), lazy_bytes(view)
    assert share == int(whole * 4 / N) and whole == cell_file.bytes_in_memory(tmp_path / "q.h5ad")
    adata.file.close()


def test_a_query_in_memory_is_not_lazy_and_no_worker_can_read_it(counts):
    adata = anndata.AnnData(csr_matrix(counts))
    adata.layers["a"], adata.raw = adata.X * 2, adata
    assert not is_lazy(adata) and in_memory(adata) is adata
    assert set(lazy._matrices(adata)) == {"X", "layers/a", "raw/X"}
    adata.X = None
    del adata.raw
    assert set(lazy._matrices(adata)) == {"layers/a"}
    # What its densest place stores a cell, of three runs of cells.
    assert lazy_bytes(adata) == pytest.approx(22 * (counts > 0).sum(), rel=0.3)
    with pytest.raises(BadOption):
        for_workers(open_lazy(anndata.AnnData(csr_matrix(counts)), []))


def test_what_cannot_be_read_by_cells_is_named(tmp_path, counts):
    with pytest.raises(QueryError, match="no cells"):
        open_lazy(anndata.AnnData(csr_matrix(counts))[:0].copy(), [])
    adata = backed(tmp_path, counts, kind=csc_matrix)
    with pytest.raises(NotCounts, match="gene by gene"):
        open_lazy(adata, [])
    adata.file.close()


def test_names_of_a_view_that_are_not_in_its_file_are_an_error():
    names = np.array(["a", "b", "c"], dtype=object)
    assert lazy._positions(names, pd.Index(["c", "a"])).tolist() == [2, 0]
    for there, wanted in ((names, ["a", "x"]), (np.array(["a", "a"], dtype=object), ["a"])):
        with pytest.raises(QueryError, match="names have changed or are not unique"):
            lazy._positions(there, pd.Index(wanted))


def test_a_matrix_on_disk_gives_rows_in_the_order_that_was_asked(tmp_path, counts):
    backed(tmp_path, counts).file.close()
    rows, columns = np.array([9, 2, 2, 30]), np.array([4, 1])
    some = OnDisk(tmp_path / "q.h5ad", "X", rows, columns)
    assert some.shape == (4, 2) and OnDisk(tmp_path / "q.h5ad", "X").shape == (N, M)
    assert np.array_equal(some[0:4].toarray(), counts[rows][:, columns])
    assert np.array_equal(some[1:3].toarray(), counts[[2, 2]][:, columns])

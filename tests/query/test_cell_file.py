"""Cells on disk, read in runs: the same cells as in memory, in whatever runs; what a run holds that the sample did not show is named."""

import io
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scgraft.errors import NotCounts, QueryError
from scgraft.query import cell_file, places
from scgraft.query.align import select_genes
from scgraft.query.cell_file import as_codes, bytes_in_memory, can_stream, free_memory, open_cells, stacked
from scgraft.query.genes import GeneMatch

N, M = 60, 12


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    counts = csr_matrix(rng.poisson(rng.gamma(0.7, 9, (N, M))).astype(np.float32))
    obs = pd.DataFrame(
        {"batch": np.repeat(["one", "two"], N // 2), "age": np.arange(N) / 2, "n_counts": counts.sum(axis=1).A1},
        index=[f"cell {i}" for i in range(N)],
    )
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"gene {j}" for j in range(M)]))


def written(adata, folder, kind="h5ad"):
    path = folder / f"q.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (adata.write_h5ad if kind == "h5ad" else adata.write_zarr)(path)
    return path


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize("place", ["X", "layers/counts", "raw/X"])
def test_runs_are_the_cells_in_memory(adata, tmp_path, monkeypatch, kind, place):
    monkeypatch.setattr(cell_file, "BLOCK", 7)
    counts = adata.X.copy()
    if place != "X":
        adata.raw = adata if place == "raw/X" else None
        adata.layers["counts" if place != "raw/X" else "scaled"] = counts if place != "raw/X" else counts * 0.37
        adata.X = -counts
    file = open_cells(written(adata, tmp_path, kind), ["batch", "age", "batch", "nothing"])
    assert (file.place, file.n_cells, file.factor, file.log1p) == (place, N, 1, False)
    assert list(file.obs) == ["batch", "age"] and str(file.obs["batch"].dtype) == "category"
    assert file.where.source == {"X": "X", "layers/counts": "layers['counts']", "raw/X": "raw.X"}[place]
    assert file.where.layer == ("counts" if place == "layers/counts" else None)
    for rows in (slice(0, 7), slice(5, 33), slice(59, 60), slice(0, N)):
        part = file.read(rows)
        assert np.array_equal(part.X.toarray(), counts.toarray()[rows])
        assert part.obs_names.tolist() == adata.obs_names[rows].tolist() == file.names(rows).tolist()
        assert part.obs["age"].tolist() == adata.obs["age"].iloc[rows].tolist()
        assert part.var_names.tolist() == adata.var_names.tolist()


def test_of_a_matched_file_the_genes_of_the_reference_are_read_by_its_names(adata, tmp_path, monkeypatch):
    """In the reference's order, summed where several columns are one gene, without genes that the file lacks."""
    monkeypatch.setattr(cell_file, "BLOCK", 9)
    own = np.array([f"own {g}" for g in range(8)])
    match = GeneMatch(np.array([0, 3, 4, 9]), np.array([6, 1, 6, 4]), {}, (), {})
    file = open_cells(written(adata, tmp_path), ["batch"]).matched(match, own)
    assert file.found.tolist() == [1, 4, 6]
    part = file.read(slice(10, 40))
    assert part.var_names.tolist() == ["own 1", "own 4", "own 6"]
    whole = select_genes(adata.X.tocsr(), match, 8).toarray()
    assert np.array_equal(part.X.toarray(), whole[10:40][:, [1, 4, 6]])


def test_counts_that_are_multiplied_or_normalised_are_recovered_run_by_run(adata, tmp_path):
    counts = adata.X.toarray()
    adata.X = csr_matrix(counts * 3)
    adata.obs = adata.obs[["batch"]]
    tripled = open_cells(written(adata, tmp_path), [])
    assert tripled.factor == 3 and np.array_equal(tripled.read(slice(3, 31)).X.toarray(), counts[3:31])
    total = counts.sum(axis=1, keepdims=True)
    adata.X = csr_matrix(np.log1p(counts / total * 1e4).astype(np.float32))
    adata.obs["n_counts"] = total[:, 0]
    logged = open_cells(written(adata, tmp_path, "zarr"), [])
    assert logged.log1p and "recovered from log1p" in logged.source and not len(logged.obs.columns)
    assert np.array_equal(np.rint(logged.read(slice(3, 31)).X.toarray()), counts[3:31])


@pytest.mark.parametrize(("value", "factor"), [(-1.0, 1), (np.nan, 1), (0.5, 1), (4.0, 3)])
def test_a_run_that_is_not_like_the_sample_is_named_with_its_cells(adata, tmp_path, monkeypatch, value, factor):
    monkeypatch.setattr(places, "JUDGED", 40)
    monkeypatch.setattr(places, "BLOCKS", 4)
    monkeypatch.setattr(cell_file, "BLOCK", 10)
    counts = adata.X.toarray() * factor
    seen = places.judged_rows(N)
    odd = next(i for i in range(20, N) if i not in seen)
    counts[odd, 0] = value
    adata.X, adata.obs = csr_matrix(counts.astype(np.float32)), adata.obs[["batch"]]
    path = written(adata, tmp_path)
    file = open_cells(path, [], molecules=True)
    assert file.factor == factor
    file.read(slice(0, odd // 10 * 10))  # the cells before it are as they should be
    with pytest.raises(NotCounts, match=r"X") as caught:
        file.read(slice(0, N))
    (note,) = caught.value.__notes__
    assert note == f"Seen in cells {odd // 10 * 10} to {odd // 10 * 10 + 9} of {path}, in {file.source}."


def test_what_a_file_takes_in_memory_is_22_bytes_a_count_and_8_for_other_values(adata, tmp_path):
    nnz = adata.X.nnz
    assert bytes_in_memory(written(adata, tmp_path)) == 22 * nnz
    adata.layers["dense"], adata.layers["few"] = np.ones((N, M), np.float32), csr_matrix(np.eye(N, M, dtype=np.float32))
    assert nnz > M and bytes_in_memory(written(adata, tmp_path)) == 22 * max(N * M, nnz) + 8 * (min(N * M, nnz) + M)
    adata.raw = adata[:, :5].copy()
    expected = 22 * N * M + 8 * (nnz + M + adata.raw.X.nnz)
    assert bytes_in_memory(written(adata, tmp_path)) == expected
    with h5py.File(tmp_path / "q.h5ad", "a") as file:
        for name in ("X", "layers", "raw"):
            del file[name]
    assert bytes_in_memory(tmp_path / "q.h5ad") == 0
    assert [can_stream(tmp_path / name) for name in ("a.h5ad", "a.zarr", "a.h5", "a.csv")] == [True, True, False, False]


def test_free_memory_is_what_the_machine_says_it_has_available(monkeypatch):
    said = "MemTotal:  900 kB\nMemAvailable:    123 kB\n"
    monkeypatch.setattr(cell_file, "open", lambda *a, **k: io.StringIO(said), raising=False)
    assert free_memory() == 123 * 1024
    monkeypatch.setattr(cell_file, "open", lambda *a, **k: io.StringIO("MemTotal: 1 kB\n"), raising=False)
    assert free_memory() == 4_000_000_000


def test_what_is_no_file_of_cells_is_named(adata, tmp_path):
    path = written(adata, tmp_path)
    with h5py.File(path, "a") as file:
        del file["obs"]
        file["obs"] = np.zeros(N)
    with pytest.raises(QueryError, match="no table of cells|obs"):
        open_cells(path, ["batch"])
    adata.X = adata.X.tocsc()
    with pytest.raises(NotCounts, match=r"gene by gene \(CSC\)"):
        open_cells(written(adata, tmp_path), ["batch"])


def test_text_is_kept_as_codes_and_numbers_as_they_are():
    frame = pd.DataFrame(
        {"a": ["x", "y"], "b": [1, 2], "c": [0.5, 1], "d": [True, False], "e": pd.Categorical(["u", "u"])}
    )
    kinds = as_codes(frame).dtypes
    assert [str(kinds[name]) for name in "abcde"] == ["category", "int64", "float64", "bool", "category"]


def test_runs_are_stacked_in_their_order_and_let_go(adata):
    runs = [adata[:20], adata[20:21], adata[21:]]
    parts = [(run.obs, run.X) for run in runs]
    made = stacked(parts, adata.var)
    assert parts == [] and np.array_equal(made.X.toarray(), adata.X.toarray())
    assert made.obs_names.tolist() == adata.obs_names.tolist() and made.var_names.tolist() == adata.var_names.tolist()


def test_a_file_without_x_has_its_counts_elsewhere(adata, tmp_path):
    adata.layers["counts"], adata.X = adata.X.copy(), None
    file = open_cells(written(adata, tmp_path), [])
    assert file.place == "layers/counts" and file.read(slice(2, 5)).X.sum() == adata.layers["counts"][2:5].sum()

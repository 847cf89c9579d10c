"""Counts stored gene by gene, written cell by cell: the same matrix, whatever its size."""

import warnings

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix

from scgraft.errors import QueryError
from scgraft.query import by_cells
from scgraft.query.by_cells import places_by_genes, write_by_cells
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 30), st.floats(0, 1), st.integers(0, 99), st.integers(1, 60))
def test_it_is_the_same_matrix(tmp_path_factory, n, m, density, seed, values):
    folder = tmp_path_factory.mktemp("csc")
    rng = np.random.default_rng(seed)
    counts = csc_matrix((rng.random((n, m)) * (rng.random((n, m)) < density)).astype(np.float32))
    adata = anndata.AnnData(counts)
    adata.obs["note"] = np.arange(n)
    adata.write_h5ad(folder / "a.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_cells, "VALUES", values)
        read = []
        write_by_cells(folder / "a.h5ad", folder / "b.h5ad", advance=read.append)
    found = anndata.read_h5ad(folder / "b.h5ad")
    assert isinstance(found.X, csr_matrix) and (found.X != counts.tocsr()).nnz == 0 and found.X.has_canonical_format
    assert found.obs["note"].tolist() == adata.obs["note"].tolist() and sum(read) == counts.nnz
    assert found.obs_names.tolist() == adata.obs_names.tolist() and found.var_names.tolist() == adata.var_names.tolist()
    assert max(read, default=0) <= max(values, np.diff(counts.indptr).max(initial=0))


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_only_what_is_stored_gene_by_gene_is_written(tmp_path, kind):
    adata = tiny_query(TinyConfig(), n_cells=20)
    adata.raw = adata.copy()
    adata.layers["counts"] = adata.X.tocsc()
    path = tmp_path / f"a.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that its default will change
        adata.write_h5ad(path) if kind == "h5ad" else adata.write_zarr(path)
    assert places_by_genes(path) == {"layers/counts": adata.X.nnz}
    found = anndata.read_h5ad(write_by_cells(path, tmp_path / "b.h5ad"))
    assert found.X is None and found.raw is None
    assert (found.layers["counts"] != adata.X).nnz == 0


def test_raw_is_written_with_its_genes(tmp_path):
    adata = tiny_query(TinyConfig(), n_cells=20)
    adata.X = adata.X.tocsc()
    adata.raw = adata.copy()
    adata = adata[:, :5].copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = anndata.read_h5ad(write_by_cells(tmp_path / "a.h5ad", tmp_path / "b.h5ad"))
    assert found.raw.var_names.tolist() == adata.raw.var_names.tolist()
    assert np.array_equal(found.raw.X.toarray(), adata.raw.X.toarray())


def test_cells_that_are_not_there_are_refused(tmp_path):
    adata = tiny_query(TinyConfig(), n_cells=20)
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["X/indices"][3] = 20
    with pytest.raises(QueryError, match="does not have"):
        write_by_cells(tmp_path / "a.h5ad", tmp_path / "b.h5ad")
    assert not (tmp_path / "b.h5ad").exists()

"""An AnnData of any kind, and what is none."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgraft
from scgraft.errors import QueryError
from scgraft.mapping.stream import open_query
from scgraft.query.given import given, some_cells
from scgraft.query.read import read_query
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.query import AlignOptions

CONFIG = TinyConfig(minified="latent_posterior_parameters")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return scgraft.load_reference(write_hub_folder(tmp_path_factory.mktemp("r") / "reference", CONFIG))


@pytest.fixture
def adata():
    return tiny_query(CONFIG, n_cells=60, batches=("new 1", "new 2"))


def same(reference, adata, changed):
    """Whether a changed query is aligned as the plain one is, and checked as well as it."""
    options = {"batch_key": "batch"}
    expected, found = (scgraft.align(reference, a, **options) for a in (adata, changed))
    assert (expected.counts != found.counts).nnz == 0 and (expected.codes == found.codes).all()
    assert expected.cells.tolist() == found.cells.tolist()
    grades = [[(f.name, f.grade) for f in scgraft.check(reference, a, **options).findings] for a in (adata, changed)]
    assert grades[0] == grades[1]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_lazy(reference, adata, tmp_path, kind):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    lazy = pytest.importorskip("anndata.experimental").read_lazy
    adata.raw = adata
    (adata.write_h5ad if kind == "h5ad" else adata.write_zarr)(tmp_path / f"q.{kind}")
    same(reference, adata, lazy(tmp_path / f"q.{kind}"))


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, lambda x: x.toarray()])
@pytest.mark.parametrize("chunks", [(7, -1), (-1, -1), (16, 11)])
def test_dask(reference, adata, make, chunks):
    dask = pytest.importorskip("dask.array")
    changed = adata.copy()
    changed.X = dask.from_array(make(sp.csr_matrix(adata.X)), chunks=chunks, asarray=False)
    same(reference, adata, changed)


def test_backed_views_and_files_with_an_empty_raw(reference, adata, tmp_path):
    path = tmp_path / "q.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        for name in ("raw", "layers"):
            if name in file:
                del file[name]
            file.create_dataset(name, data=h5py.Empty("f"))
            file[name].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})
    backed = anndata.read_h5ad(path, backed="r")
    same(reference, adata, backed)
    same(reference, adata[5:40].copy(), backed[5:40])
    backed.file.close()


@pytest.mark.parametrize("column", ["disease", "n_counts", "note"])
def test_a_column_that_stands_twice(reference, adata, column):
    changed = adata.copy()
    changed.obs[column] = "1" if column != "n_counts" else np.asarray(adata.X.sum(axis=1)).ravel()
    changed.obs = pd.concat([changed.obs, changed.obs[[column]]], axis=1)
    changed.var["gene_ids"], changed.var["feature_types"] = "1", "Gene Expression"
    changed.var = pd.concat([changed.var, changed.var[["gene_ids", "feature_types"]]], axis=1)
    same(reference, adata, changed)
    changed.obs = pd.concat([changed.obs, changed.obs[["batch"]]], axis=1)
    found = scgraft.check(reference, changed, batch_key="batch")
    assert found.grade == "stop" and "2 columns called 'batch'" in found.findings[-1].sentence


@pytest.mark.parametrize("make", [lambda a: a.to_df(), lambda a: "x.h5ad", lambda a: a.X, lambda a: None])
def test_what_is_no_anndata_is_named(reference, adata, make):
    query = make(adata)
    with pytest.raises(QueryError, match=f"is a {type(query).__name__}; an AnnData was expected"):
        scgraft.map_query(reference, query, batch_key="batch")
    assert scgraft.check(reference, query).grade == "stop"


def test_of_some_cells_what_they_have_is_read_and_no_other_cell(adata, tmp_path):
    adata.layers["a"], adata.raw = adata.X * 2, adata
    adata.obsm["X_pca"] = np.arange(2.0 * adata.n_obs).reshape(-1, 2)
    adata.obsp["near"] = sp.identity(adata.n_obs, format="csr")
    adata.write_h5ad(tmp_path / "q.h5ad")
    backed = anndata.read_h5ad(tmp_path / "q.h5ad", backed="r")
    rows = np.array([1, 5, 9])
    for whole in (adata, given(backed)):
        part = some_cells(whole, rows)
        assert not part.isbacked and part.obs.equals(adata.obs.iloc[rows]) and not list(part.obsp)
        assert np.array_equal(part.obsm["X_pca"], adata.obsm["X_pca"][rows])
        for found, expected in ((part.X, adata.X), (part.layers["a"], adata.layers["a"]), (part.raw.X, adata.raw.X)):
            assert np.array_equal(sp.csr_matrix(found).toarray(), sp.csr_matrix(expected).toarray()[rows])
    backed.file.close()


def in_an_unknown_encoding(file, place):
    group = file.require_group(place)
    group.attrs.update({"encoding-type": "from-the-future", "encoding-version": "9.9.0"})
    group.create_dataset("a", data=[1.0, 2.0])
    table = place.split("/")[0]
    if table in ("obs", "var"):
        file[table].attrs["column-order"] = np.array(
            [*file[table].attrs["column-order"], "x"], dtype=h5py.string_dtype()
        )


@pytest.mark.parametrize(
    "place", ["uns/a/x", "obsm/x", "layers/x", "obsp/x", "varm/x", "varp/x", "more/x", "obs/x", "var/x"]
)
def test_an_unknown_encoding_in_an_unused_place_is_left_out_and_said(reference, adata, tmp_path, caplog, place):
    path = tmp_path / "q.h5ad"
    adata.obsm["X_pca"], adata.uns["b"] = np.zeros((adata.n_obs, 2)), "kept"
    adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        in_an_unknown_encoding(file, place)
    for backed in (False, True):
        caplog.clear()
        found = read_query(path, backed=backed)
        assert place.rpartition("/")[2] in caplog.text and "does not know how it is encoded" in caplog.text
        assert found.uns["b"] == "kept" and "X_pca" in found.obsm and "x" not in found.obs
        expected, aligned = (scgraft.align(reference, a, batch_key="batch") for a in (adata, found))
        assert (expected.counts != aligned.counts).nnz == 0
    file = open_query(reference, path, AlignOptions("batch"))
    assert file.n_cells == adata.n_obs and file.source == "X"


def test_counts_in_an_unknown_encoding_are_missed_by_name(reference, adata, tmp_path):
    adata.write_h5ad(tmp_path / "q.h5ad")
    with h5py.File(tmp_path / "q.h5ad", "a") as file:
        del file["X"]
        in_an_unknown_encoding(file, "X")
    with pytest.raises(QueryError, match="No raw counts"):
        scgraft.align(reference, read_query(tmp_path / "q.h5ad"), batch_key="batch")

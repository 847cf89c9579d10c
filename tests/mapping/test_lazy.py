"""A query that is not in memory is mapped piece by piece, as one that is."""

import pickle
import tempfile
import warnings
from dataclasses import replace

import anndata
import numpy as np
import pytest

import scgraft
from scgraft.errors import NotCounts, QueryError
from scgraft.mapping import freeze, lazy, map, stream
from scgraft.mapping.load import load_reference
from scgraft.query.lazy import in_memory, is_lazy, lazy_bytes, open_lazy
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)
FIT = FitConfig(max_steps=5, device="cpu")
N = 230
PART = np.sort(np.random.default_rng(1).permutation(N)[:170])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Samples and parts of a few dozen cells."""
    for module in (map, stream):
        monkeypatch.setattr(module, "SAMPLE", 100)
    monkeypatch.setattr(freeze, "CELLS", 48)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return load_reference(write_hub_folder(tmp_path_factory.mktemp("reference") / "r", CONFIG))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The query, and the same with its counts in X, in a layer and in raw, as .h5ad and .zarr."""
    folder, adata = tmp_path_factory.mktemp("query"), tiny_query(CONFIG, n_cells=N, batches=("new 1", "new 2"))
    adata.write_h5ad(folder / "x.h5ad")
    layer, raw = adata.copy(), adata.copy()
    layer.layers["counts"] = layer.X.copy()
    raw.raw = raw.copy()
    for other in (layer, raw):
        other.X = other.X.toarray() + 0.25
    layer.write_h5ad(folder / "layer.h5ad")
    raw.write_h5ad(folder / "raw.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that its default will change
        layer.write_zarr(folder / "layer.zarr")
    dense = adata.copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(folder / "dense.h5ad")
    return folder, adata


def lazily(path):
    pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.experimental.read_lazy(path)


def with_dask(adata):
    array = pytest.importorskip("dask.array")
    out = adata.copy()
    out.X = array.from_array(adata.X.toarray(), chunks=(60, -1))
    return out


KINDS = {
    "backed": lambda folder, adata: anndata.read_h5ad(folder / "x.h5ad", backed="r"),
    "backed, counts in raw": lambda folder, adata: anndata.read_h5ad(folder / "raw.h5ad", backed="r"),
    "backed, counts in a layer": lambda folder, adata: anndata.read_h5ad(folder / "layer.h5ad", backed="r"),
    "lazy .h5ad": lambda folder, adata: lazily(folder / "x.h5ad"),
    "lazy .zarr, counts in a layer": lambda folder, adata: lazily(folder / "layer.zarr"),
    "lazy, counts in raw": lambda folder, adata: lazily(folder / "raw.h5ad"),
    "dask": lambda folder, adata: with_dask(adata),
}
VIEWS = ("backed", "lazy .h5ad", "dask")


def mapped_in_pieces(reference, adata, monkeypatch, **kwargs):
    """The mapping, and the runs of rows that were mapped."""
    seen, real = [], lazy.map_file

    def watched(*args, **rest):
        for i, rows, part in real(*args, **rest):
            seen.append(rows)
            yield i, rows, part

    monkeypatch.setattr(lazy, "map_file", watched)
    made = scgraft.map_query(reference, adata, batch_key="batch", config=FIT, memory=0, **kwargs)
    return made, seen


def assert_same(made, whole):
    assert np.array_equal(made.latent.mean, whole.latent.mean)
    assert np.array_equal(made.latent.variance, whole.latent.variance)
    one, other = made.to_frame(), whole.to_frame()
    assert one.index.tolist() == other.index.tolist() and one.equals(other)
    assert made.alignment.n_cells == whole.alignment.n_cells and made.summary["cells"] == whole.summary["cells"]
    assert made.alignment.cells_per_batch == whole.alignment.cells_per_batch
    assert made.summary["labels"] == whole.summary["labels"]


@pytest.fixture(scope="module")
def whole(reference, files):
    with pytest.MonkeyPatch.context() as patch:
        for module in (map, stream):
            patch.setattr(module, "SAMPLE", 100)
        patch.setattr(freeze, "CELLS", 48)
        return {
            rows: scgraft.map_query(reference, adata, batch_key="batch", config=FIT)
            for rows, adata in (("all", files[1]), ("part", files[1][PART]))
        }


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_mapped_as_in_memory(reference, files, whole, monkeypatch, kind):
    adata = KINDS[kind](*files)
    assert is_lazy(adata)
    made, seen = mapped_in_pieces(reference, adata, monkeypatch)
    assert_same(made, whole["all"])
    assert max(rows.stop - rows.start for rows in seen) == 48 and sum(rows.stop - rows.start for rows in seen) == N


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_of_it_is_mapped_as_in_memory(reference, files, whole, monkeypatch, kind):
    view = KINDS[kind](*files)[PART]
    made, seen = mapped_in_pieces(reference, view, monkeypatch)
    assert_same(made, whole["part"])
    assert max(rows.stop - rows.start for rows in seen) == 48


def test_cells_and_genes_of_a_dense_backed_view_are_in_its_order(files):
    folder, adata = files
    order, genes = np.random.default_rng(2).permutation(N)[:90], np.array([7, 3, 20])
    view = anndata.read_h5ad(folder / "dense.h5ad", backed="r")[order, genes]
    file = open_lazy(view, ["batch"])
    found = file.read(slice(10, 60))
    assert np.array_equal(found.X.toarray(), adata.X.toarray()[np.ix_(order[10:60], genes)])
    assert found.obs_names.tolist() == adata.obs_names[order[10:60]].tolist()
    assert found.obs["batch"].tolist() == adata.obs["batch"].iloc[order[10:60]].tolist()
    assert file.matrix.shape == (90, 3)


def test_what_fits_into_the_memory_is_mapped_in_one_piece(reference, files, whole, monkeypatch):
    monkeypatch.setattr(lazy, "open_query", None)
    for kind in ("backed", "lazy .h5ad", "dask"):
        adata = KINDS[kind](*files)
        assert_same(scgraft.map_query(reference, adata, batch_key="batch", config=FIT), whole["all"])
        assert is_lazy(adata)  # it is not changed


def test_a_small_query_is_its_own_sample(reference, files, monkeypatch):
    folder, adata = files
    for module in (map, stream):
        monkeypatch.setattr(module, "SAMPLE", 1000)
    made, seen = mapped_in_pieces(reference, anndata.read_h5ad(folder / "x.h5ad", backed="r"), monkeypatch)
    assert_same(made, scgraft.map_query(reference, adata, batch_key="batch", config=FIT))
    assert seen == []


def test_a_file_that_is_open_for_writing_is_mapped_in_one_piece(reference, files, whole, tmp_path, monkeypatch):
    files[1].write_h5ad(tmp_path / "x.h5ad")
    monkeypatch.setattr(lazy, "open_query", None)
    adata = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r+")
    assert_same(scgraft.map_query(reference, adata, batch_key="batch", config=FIT, memory=0), whole["all"])


def test_what_can_be_sent_to_another_process_is_small(files):
    folder, _ = files
    for kind in ("backed", "lazy .h5ad"):
        file = open_lazy(KINDS[kind](*files), ["batch"])
        sent = pickle.dumps(replace(file, obs=file.obs.iloc[:0], cells=None))
        assert len(sent) < 20_000
        again = pickle.loads(sent)
        assert (again.matrix.shape == (N, 40)) and again.place == "X"


def test_memory_is_told_from_a_few_cells(files):
    stored = files[1].X.nnz
    for kind in KINDS:
        assert 0.5 < lazy_bytes(KINDS[kind](*files)) / (22 * stored) < 3.5, kind


def test_what_is_in_memory_is_left_as_it_is(files):
    assert not is_lazy(files[1]) and in_memory(files[1]) is files[1]


def test_a_view_whose_file_has_other_names_is_refused(files, tmp_path):
    adata = files[1].copy()
    adata.write_h5ad(tmp_path / "q.h5ad")
    view = anndata.read_h5ad(tmp_path / "q.h5ad", backed="r")[:20]
    adata.obs_names = [f"other {i}" for i in range(N)]
    view.file.close()
    adata.write_h5ad(tmp_path / "q.h5ad")
    with pytest.raises(QueryError, match="names have changed"):
        open_lazy(view, ["batch"])


def test_logarithms_are_recovered_and_what_holds_no_counts_is_refused(reference, files, tmp_path):
    adata = files[1].copy()
    plain = scgraft.map_query(reference, adata, batch_key="batch", config=FitConfig(epochs=0), calibration=None)
    adata.X = np.log1p(adata.X.toarray())
    adata.write_h5ad(tmp_path / "log.h5ad")
    options = {"batch_key": "batch", "config": FitConfig(epochs=0), "calibration": None, "memory": 0}
    found = scgraft.map_query(reference, anndata.read_h5ad(tmp_path / "log.h5ad", backed="r"), **options)
    assert found.alignment.counts_from == "recovered from log1p-normalised X"
    assert np.array_equal(found.latent.mean, plain.latent.mean)
    adata.X = adata.X**1.5
    adata.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(NotCounts, match="has fractions"):
        scgraft.map_query(reference, anndata.read_h5ad(tmp_path / "other.h5ad", backed="r"), **options)


def test_counts_that_are_stored_gene_by_gene_are_written_cell_by_cell_first(reference, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    adata = tiny_query(CONFIG, n_cells=N)
    options = {"batch_key": "kit", "config": FitConfig(epochs=0), "calibration": None, "memory": 1000}
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "csc.h5ad")
    adata.obs["kit"] = adata.obs["batch"]
    backed = anndata.read_h5ad(tmp_path / "csc.h5ad", backed="r")
    backed.obs["kit"] = backed.obs["batch"]  # known to the object only, not to the file
    for own, lazy_own in ((adata, backed), (adata[PART, ::-1].copy(), backed[PART, ::-1])):
        own.X = own.X.tocsr()
        plain = scgraft.map_query(reference, own, **options)
        found = scgraft.map_query(reference, lazy_own, **options)
        assert np.array_equal(found.latent.mean, plain.latent.mean)
        assert found.latent.cells.tolist() == own.obs_names.tolist()
        assert any("stored gene by gene (CSC)" in said for said in found.alignment.messages)
        assert not list((tmp_path / "tmp").iterdir())
    monkeypatch.setattr(lazy, "NEEDED", 1e18)
    with pytest.raises(NotCounts, match=r"stored gene by gene.*`scgraft map`, which writes it cell by cell.*memory="):
        scgraft.map_query(reference, backed, **options)


def test_continuous_covariates_are_read_in_pieces(tmp_path):
    config = replace(CONFIG, continuous=("age",))
    reference, adata = load_reference(write_hub_folder(tmp_path / "r", config)), tiny_query(config, n_cells=N)
    adata.write_h5ad(tmp_path / "q.h5ad")
    whole = scgraft.map_query(reference, adata, batch_key="batch", config=FIT, calibration=None)
    backed = anndata.read_h5ad(tmp_path / "q.h5ad", backed="r")
    pieces = scgraft.map_query(reference, backed, batch_key="batch", config=FIT, calibration=None, memory=1000)
    assert np.array_equal(whole.latent.mean, pieces.latent.mean)
    del adata.obs["age"]
    adata.write_h5ad(tmp_path / "lacks.h5ad")
    lacking = anndata.read_h5ad(tmp_path / "lacks.h5ad", backed="r")
    with pytest.raises(QueryError, match="age"):
        scgraft.map_query(reference, lacking, batch_key="batch", config=FIT, memory=1000)

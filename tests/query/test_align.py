"""Taking in a query: counts, genes, batches, covariates; the AnnData stays as it is."""

import warnings
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.errors import BatchColumn, CovariateMissing, EmptyCells, GenesNotFound, NotCounts, QueryError
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.query.align import align
from scgraft.query.counts import find_counts
from scgraft.query.identifiers import identifier_kind, species_of
from scgraft.query.read import read_query
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True)
REFERENCE = reference_of(CONFIG)


def query(**kwargs):
    adata = tiny_query(CONFIG, **kwargs)
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    return adata


def same(a, b):
    return (a.counts != b.counts).nnz == 0 and np.array_equal(a.codes, b.codes) and a.levels == b.levels


def lognorm(adata):
    out = adata.copy()
    sc.pp.normalize_total(out, target_sum=1e4)
    sc.pp.log1p(out)
    return out


def test_the_anndata_is_not_changed():
    adata = query()
    before = adata.copy()
    align(REFERENCE, adata, batch_key="batch")
    assert (adata.X != before.X).nnz == 0 and adata.obs.equals(before.obs) and adata.var.equals(before.var)
    assert list(adata.uns) == list(before.uns) and list(adata.obsm) == list(before.obsm)


def test_counts_are_found_wherever_they_are():
    adata = query()
    expected = align(REFERENCE, adata, batch_key="batch")
    for place in ("layers['counts']", "layers['odd name']", "raw.X"):
        other = lognorm(adata)
        if place == "raw.X":
            other.raw = adata
        else:
            other.layers[place.split("'")[1]] = adata.X
        found = align(REFERENCE, other, batch_key="batch")
        assert found.alignment.counts_from == place and same(found, expected)
    dense = adata.copy()
    dense.X = adata.X.toarray()
    assert same(align(REFERENCE, dense, batch_key="batch"), expected)
    assert same(align(REFERENCE, adata[:], batch_key="batch"), expected)


def test_counts_are_recovered_from_log1p_exactly():
    adata = query()
    found = align(REFERENCE, lognorm(adata), batch_key="batch")
    assert "recovered from log1p-normalised X" in found.alignment.counts_from
    assert same(found, align(REFERENCE, adata, batch_key="batch"))


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([1e4, 1e6, 613.0]), st.sampled_from([None, 3, 5]))
def test_recovery_is_exact_for_random_counts(seed, target, decimals):
    rng = np.random.default_rng(seed)
    drawn = rng.poisson(rng.gamma(0.4, 2, (8, 40))).astype(np.float32)
    drawn[:, :12] = np.maximum(drawn[:, :12], 1)  # cells of fewer values could be multiples
    drawn[:, 0] = 1
    counts = sp.csr_matrix(drawn)
    adata = anndata.AnnData(sp.csr_matrix(counts))
    sc.pp.normalize_total(adata, target_sum=target)
    sc.pp.log1p(adata)
    if decimals:
        adata.X.data = np.round(adata.X.data, decimals)
    try:
        found = find_counts(adata)
    except NotCounts:
        assert decimals == 3  # three decimals do not always tell large counts apart
        return
    assert (found.matrix != counts).nnz == 0


def test_packaged_cells_of_scanpy_are_recovered():
    found = find_counts(sc.datasets.pbmc68k_reduced(), layer="raw")
    assert "recovered" in found.source and found.deviation < 0.2
    assert found.matrix.shape == (700, 765) and found.matrix.max() == 259


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-2.0, "negative"), (0.5, "fractions")]
)
def test_what_is_not_counts_is_refused_by_name(value, word):
    adata = query()
    adata.X = adata.X.toarray()
    adata.X[3, 2] = value
    with pytest.raises(NotCounts, match=word) as caught:
        align(REFERENCE, adata, batch_key="batch")
    if word != "fractions":
        assert f"cell {adata.obs_names[3]} gene {adata.var_names[2]}" in str(caught.value)


def test_a_forced_layer_that_is_not_there():
    with pytest.raises(NotCounts, match=r"no layers\['umi'\]; it has X"):
        align(REFERENCE, query(), layer="umi")


@given(st.integers(0, 2**31), st.integers(0, 5))
def test_order_of_genes_and_extra_genes_change_nothing(seed, extra):
    rng = np.random.default_rng(seed)
    adata = query()
    names = [*adata.var_names, *(f"other {i}" for i in range(extra))]
    matrix = sp.hstack([adata.X, sp.csr_matrix(rng.poisson(1, (adata.n_obs, extra)))], format="csr")
    order = rng.permutation(len(names))
    other = anndata.AnnData(matrix[:, order], obs=adata.obs, var=pd.DataFrame(index=np.array(names)[order]))
    found = align(REFERENCE, other, batch_key="batch")
    assert same(found, align(REFERENCE, adata, batch_key="batch")) and found.alignment.n_unused == extra


@given(st.integers(0, 2**31))
def test_order_of_cells_permutes(seed):
    adata = query()
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    found, expected = (align(REFERENCE, a, batch_key="batch") for a in (adata[order], adata))
    assert (found.counts != expected.counts[order]).nnz == 0
    assert np.array_equal(found.cells, expected.cells[order])


ENSEMBL = [f"ENSG{i:011d}" for i in range(CONFIG.n_genes)]
SYMBOLS = [f"ABC{i}" for i in range(CONFIG.n_genes)]


def renamed(names, var=None):
    schema = replace(REFERENCE.schema, genes=np.array(names))
    return replace(REFERENCE, schema=schema, var=None if var is None else pd.DataFrame(var, index=names))


def named(names, var=None):
    adata = query()
    adata.var = pd.DataFrame(var or {}, index=list(names))
    return adata


@pytest.mark.parametrize(
    ("reference", "adata", "way"),
    [
        (renamed(ENSEMBL), named([f"{e}.7" for e in ENSEMBL]), "var_names without version"),
        (renamed([f"{e}.2" for e in ENSEMBL]), named(ENSEMBL), "var_names without version"),
        (renamed(ENSEMBL), named(SYMBOLS, {"gene_ids": ENSEMBL}), "var['gene_ids']"),
        (renamed(ENSEMBL, {"symbol": SYMBOLS}), named(SYMBOLS), "var_names"),
        (renamed(SYMBOLS), named([s.lower() for s in SYMBOLS]), "var_names in another case"),
    ],
)
def test_genes_are_matched_in_every_way(reference, adata, way):
    found = align(reference, adata, batch_key="batch")
    assert found.alignment.n_found == CONFIG.n_genes and found.alignment.matched_by == {way: CONFIG.n_genes}
    assert same(found, align(REFERENCE, query(), batch_key="batch"))


def test_duplicates_are_summed_and_listed():
    adata = query()
    names = list(adata.var_names)
    names[1] = names[0]
    adata.var.index = names
    found = align(REFERENCE, adata, batch_key="batch")
    assert found.alignment.summed == {names[0]: (names[0], names[0])}
    assert found.alignment.missing == (REFERENCE.schema.genes[1],)
    assert np.array_equal(found.counts[:, 0].toarray().ravel(), adata.X[:, :2].sum(axis=1).A1)


def test_missing_genes_are_zero_sparse_and_weighed():
    adata = query()
    found = align(REFERENCE, adata[:, 5:], batch_key="batch", drop_empty=True)
    assert found.counts.shape[1] == CONFIG.n_genes and found.counts[:, :5].nnz == 0
    assert found.alignment.missing == tuple(REFERENCE.schema.genes[:5]) and 0 < found.alignment.found_weight < 1
    assert any("5 genes of the reference are missing" in m for m in found.alignment.messages)


def test_other_identifiers_are_refused_with_examples():
    with pytest.raises(GenesNotFound, match="Only 0 of the reference's 30 genes.*ABC0.*gene_map"):
        align(REFERENCE, named(SYMBOLS))


def test_the_other_species_is_refused():
    mouse = [s.capitalize() for s in SYMBOLS]
    with pytest.raises(GenesNotFound, match="look like mouse .*Abc0.* the reference is human"):
        align(renamed(SYMBOLS), named(mouse))
    with pytest.raises(GenesNotFound, match="look like mouse"):
        align(renamed(ENSEMBL), named([e.replace("ENSG", "ENSMUSG") for e in ENSEMBL]))
    assert species_of(["g0001"] * 40) is None


def test_gene_map_comes_first():
    mapping = dict(zip(SYMBOLS, REFERENCE.schema.genes, strict=True))
    found = align(REFERENCE, named(SYMBOLS), batch_key="batch", gene_map=mapping)
    assert found.alignment.matched_by == {"gene map": CONFIG.n_genes}


def test_identifier_kinds():
    assert identifier_kind(np.array(ENSEMBL)) == "Ensembl ids (ENSG)"
    assert identifier_kind(np.array([f"{e}.1" for e in ENSEMBL])) == "Ensembl ids with versions (ENSG)"
    assert identifier_kind(np.array(SYMBOLS)) == "symbols"


def test_known_and_new_batches():
    known = CONFIG.batches[0]
    adata = query(batches=(known, "zz", "aa"))
    found = align(REFERENCE, adata, batch_key="batch")
    assert found.alignment.known_batches == (known,) and found.alignment.new_levels == {"batch": ("aa", "zz")}
    assert found.levels["batch"] == (*CONFIG.batches, "aa", "zz")
    assert sum(found.alignment.cells_per_batch.values()) == adata.n_obs
    assert any("knows the batch" in m for m in found.alignment.messages)


@pytest.mark.parametrize("kind", ["int", "float", "category", "bool"])
def test_batch_columns_of_any_type(kind):
    adata = query()
    codes = np.arange(adata.n_obs) % 2
    column = {
        "int": codes,
        "float": codes.astype(float),
        "category": pd.Categorical(codes.astype(str), categories=["unused", "1", "0"]),
        "bool": codes == 1,
    }[kind]
    adata.obs["sample"] = column
    expected = ("False", "True") if kind == "bool" else ("0", "1")
    assert align(REFERENCE, adata, batch_key="sample").alignment.new_levels == {"batch": expected}


def test_no_batch_column_is_one_new_batch_said_aloud():
    found = align(REFERENCE, query())
    assert found.alignment.new_levels == {"batch": ("query",)}
    assert any("whole query is one new batch" in m for m in found.alignment.messages)
    taken = replace(REFERENCE, schema=replace(REFERENCE.schema, batches=("query", "query_2")))
    assert align(taken, query()).alignment.new_levels == {"batch": ("query_3",)}


def test_bad_batch_columns():
    adata = query()
    with pytest.raises(BatchColumn, match=r"no column obs\['sample'\]; it has .*batch"):
        align(REFERENCE, adata, batch_key="sample")
    adata.obs["sample"] = [None, *["a"] * (adata.n_obs - 1)]
    with pytest.raises(BatchColumn, match=f"missing .NaN. for 1 cells, e.g. {adata.obs_names[0]}"):
        align(REFERENCE, adata, batch_key="sample")


def test_covariates_are_extended_or_asked_for():
    config = replace(CONFIG, covariates={"donor": ("d1", "d2")}, continuous=("age",))
    reference = reference_of(config)
    adata = tiny_query(config, batches=("new",))
    adata.obs["donor"] = ["d1", "d9"] * (adata.n_obs // 2)
    found = align(reference, adata, batch_key="batch", drop_empty=True)
    assert found.alignment.new_levels["covariate:donor"] == ("d9",)
    with pytest.raises(CovariateMissing, match="'donor'.*the reference knows d1, d2"):
        align(reference, _without(adata, "donor"), batch_key="batch")
    with pytest.raises(CovariateMissing, match="continuous covariate 'age'"):
        align(reference, _without(adata, "age"), batch_key="batch")
    adata.obs["age"] = np.nan
    with pytest.raises(QueryError, match=r"obs\['age'\] has NaN"):
        align(reference, adata, batch_key="batch")


def _without(adata, column):
    out = adata.copy()
    del out.obs[column]
    return out


def test_empty_cells_are_listed_or_dropped():
    adata = query()
    matrix = adata.X.toarray()
    matrix[[1, 4]] = 0
    adata.X = sp.csr_matrix(matrix)
    with pytest.raises(EmptyCells, match=f"2 cells .*{adata.obs_names[1]}, {adata.obs_names[4]}"):
        align(REFERENCE, adata, batch_key="batch")
    found = align(REFERENCE, adata, batch_key="batch", drop_empty=True)
    assert found.alignment.dropped == tuple(adata.obs_names[[1, 4]]) and len(found.cells) == adata.n_obs - 2


def test_cell_names_must_be_unique_and_there_must_be_cells():
    adata = query()
    with pytest.raises(QueryError, match="no cells"):
        align(REFERENCE, adata[:0])
    adata.obs.index = ["c"] * adata.n_obs
    with pytest.raises(QueryError, match="not unique"):
        align(REFERENCE, adata)


def test_files_of_every_kind(tmp_path):
    adata = query(n_cells=12)
    expected = align(REFERENCE, adata, batch_key="batch")
    adata.write_h5ad(tmp_path / "q.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which version of the zarr format will be the default
        adata.write_zarr(tmp_path / "q.zarr")
    folder = tmp_path / "10x"
    folder.mkdir()
    from scipy.io import mmwrite

    mmwrite(folder / "matrix.mtx", adata.X.T.tocoo())
    (folder / "genes.tsv").write_text("".join(f"{g}\t{g}\n" for g in adata.var_names))
    (folder / "barcodes.tsv").write_text("".join(f"{c}\n" for c in adata.obs_names))
    with h5py.File(tmp_path / "10x.h5", "w") as file:
        group, matrix = file.create_group("matrix"), adata.X.tocsr()
        group["data"], group["indices"], group["indptr"] = matrix.data.astype(np.int32), matrix.indices, matrix.indptr
        group["shape"] = matrix.shape[::-1]
        group["barcodes"] = adata.obs_names.to_numpy().astype("S")
        genes, n = adata.var_names.to_numpy().astype("S"), adata.n_vars
        for name, values in (
            ("id", genes),
            ("name", genes),
            ("genome", [b"x"] * n),
            ("feature_type", [b"Gene Expression"] * n),
        ):
            group[f"features/{name}"] = values
    for path in (folder, tmp_path / "10x.h5"):
        assert (align(REFERENCE, read_query(path)).counts != expected.counts).nnz == 0
    for path, backed in (("q.h5ad", False), ("q.h5ad", True), ("q.zarr", False)):
        found = read_query(tmp_path / path, backed=backed)
        assert same(align(REFERENCE, found, batch_key="batch"), expected)
        if backed:
            found.file.close()
    (tmp_path / "q.txt").write_text("no")
    for name, word in (("q.txt", "is no table"), ("absent.h5ad", "does not exist")):
        with pytest.raises(QueryError, match=word):
            read_query(tmp_path / name)
    (tmp_path / "bad.h5ad").write_text("no")
    with pytest.raises(QueryError, match="cannot be read"):
        read_query(tmp_path / "bad.h5ad")


def test_one_cell_maps():
    found = align(REFERENCE, query(n_cells=1, batches=("new",)), batch_key="batch", drop_empty=True)
    latent = embed(REFERENCE, found, fit(REFERENCE, found, FitConfig(max_steps=2)))
    assert latent.mean.shape == (1, CONFIG.n_latent)


@pytest.mark.parametrize("gone", ["nan", "", "None", "NA", "  "])
def test_text_that_was_missing_is_missing(gone):
    adata = query()
    adata.obs["sample"] = [gone, *["a"] * (adata.n_obs - 1)]
    with pytest.raises(BatchColumn, match=f"missing .written as {gone!r}. for 1 cells, e.g. {adata.obs_names[0]}"):
        align(REFERENCE, adata, batch_key="sample")
    known = replace(REFERENCE, schema=replace(REFERENCE.schema, batches=(*CONFIG.batches[1:], gone)))
    assert align(known, adata, batch_key="sample").alignment.known_batches == (gone,)


def test_blanks_around_batches_are_removed_and_that_is_said():
    adata = query()
    adata.obs["sample"] = ["x ", *["x"] * (adata.n_obs - 1)]
    found = align(REFERENCE, adata, batch_key="sample").alignment
    assert found.new_levels == {"batch": ("x",)} and any("Blanks around the names" in m for m in found.messages)


def test_two_columns_of_one_name_are_named():
    adata = query()
    two = pd.concat([adata.obs["batch"], adata.obs["batch"]], axis=1)
    adata.obs = pd.concat([adata.obs.drop(columns="batch"), two], axis=1)
    with pytest.raises(QueryError, match="2 columns called 'batch'"):
        align(REFERENCE, adata, batch_key="batch")


def test_a_batch_without_cells_gets_no_column():
    adata = query(batches=("one", "two"))
    matrix = adata.X.toarray()
    matrix[(adata.obs["batch"] == "two").to_numpy()] = 0
    adata.X = sp.csr_matrix(matrix)
    found = align(REFERENCE, adata, batch_key="batch", drop_empty=True)
    assert found.levels["batch"] == (*CONFIG.batches, "one") and found.alignment.new_levels == {"batch": ("one",)}

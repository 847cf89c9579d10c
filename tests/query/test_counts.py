"""Whole numbers that are counts, whole numbers that are not, and which place is taken."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from case_files import case, hub_reference, plain_query
from scgraft.errors import NotCounts
from scgraft.query import evidence
from scgraft.query.align import align
from scgraft.query.counts import find_counts
from scgraft.query.places import cells_of
from shared_files import SHARED


def drawn(seed, n=300, genes=200, depth=8.0):
    """Counts as cells give them: gamma rates of genes, cells of different depth, two kinds of cells."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.3, 1.0, (2, genes)) * depth
    size = rng.lognormal(0, 0.4, (n, 1))
    counts = rng.poisson(rate[rng.integers(0, 2, n)] * size)
    return sp.csr_matrix(counts[counts.sum(axis=1) > 0].astype(np.float32))


def normalised(x, target):
    return sp.csr_matrix(sp.diags(target / np.asarray(x.sum(axis=1)).ravel()) @ x, dtype=np.float32)


def values(x, function):
    out = sp.csr_matrix(x, copy=True)
    out.data = function(out.data).astype(np.float32)
    out.eliminate_zeros()
    return out


def ranks(method):
    def make(x):
        out = x.copy()
        for a, b in zip(x.indptr[:-1], x.indptr[1:], strict=True):
            out.data[a:b] = rankdata(x.data[a:b], method)
        return out

    return make


DISGUISES = {
    "mask": (lambda x: values(x, np.ones_like), "mask"),
    "rounded log1p": (lambda x: values(values(normalised(x, 1e4), np.log1p), np.rint), "logarithms"),
    "rounded log2": (lambda x: values(values(normalised(x, 1e4), lambda v: np.log2(v + 1)), np.rint), "logarithms"),
    "rounded CPM": (lambda x: values(normalised(x, 1e6), np.rint), "normalised values that were rounded"),
    "rounded CP10k": (lambda x: values(normalised(x, 1e4), np.rint), "normalised values that were rounded"),
    "rounded CPM of some genes": (lambda x: values(normalised(x, 1e6), np.rint)[:, ::3], "normalised values that were"),
    "dense ranks": (ranks("dense"), "ranks"),
    "lowest ranks": (ranks("min"), "ranks"),
    "highest ranks": (ranks("max"), "ranks"),
    "ordinal ranks": (ranks("ordinal"), "ranks"),
    "rounded roots": (lambda x: values(values(normalised(x, 1e4), np.sqrt), np.rint), "square-root|transformed"),
    "halves": (lambda x: values(x, lambda v: np.rint(v / 2)), "transformed values that were rounded"),
    "counts above one": (lambda x: values(x, lambda v: v * (v > 1)), "transformed values that were rounded"),
    "a mask times seven": (lambda x: values(x, lambda v: np.full_like(v, 7)), "mask"),
}
FRACTIONS = {
    "log2": (lambda x: values(normalised(x, 1e4), lambda v: np.log2(v + 1)), "log2"),
    "log10": (lambda x: values(normalised(x, 1e4), lambda v: np.log10(v + 1)), "log10"),
    "CP10k": (lambda x: normalised(x, 1e4), "without a logarithm"),
    "CPM": (lambda x: normalised(x, 1e6), "without a logarithm"),
    "roots": (lambda x: values(normalised(x, 1e4), np.sqrt), "square roots"),
    "roots of counts": (lambda x: values(x, np.sqrt), "square roots"),
    "scaled": (lambda x: sp.csr_matrix((x.toarray() - x.mean(axis=0).A1) / (x.toarray().std(axis=0) + 1)), "scaled"),
}


SMART_SEQ = ("cortex_allen", "pancreas_segerstolpe_1k", "pancreas-segerstolpe-scvi")


def real_counts():
    """Cells of each count matrix at hand."""
    for path in sorted([*SHARED.glob("data/*.h5ad"), *SHARED.glob("query/*.h5ad")]):
        x = anndata.read_h5ad(path).X.tocsr()
        yield path.stem, x[np.random.default_rng(0).permutation(x.shape[0])[:200], :4000]


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([0.5, 8.0, 60.0]), st.sampled_from([20, 300]))
def test_no_mixture_of_poisson_counts_is_refused(seed, depth, n):
    x = drawn(seed, n=n, depth=depth)
    assert evidence.refusal(x) is None
    assert evidence.excess_of_ones(x) < evidence.STANDARD_ERRORS and evidence.too_even(x)[0] < evidence.FEWEST_EVEN


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([0.5, 8.0, 60.0]), st.sampled_from([20, 300]))
def test_no_small_number_stands_out_in_counts(seed, depth, n):
    """The bound holds for cells and for genes; ambient counts subtracted, and expected counts rounded, keep it."""
    x = drawn(seed, n=n, depth=depth)
    rng = np.random.default_rng(seed)
    ambient = values(x, lambda v: np.maximum(v - rng.integers(0, 2, len(v)), 0))
    shared = values(x, lambda v: np.rint(v + rng.uniform(-1, 1, len(v)) * (rng.random(len(v)) < 0.2)))
    for counts in (x, ambient, shared):
        assert not evidence.dips(counts, evidence.DIP_DOUBTED)


def test_how_far_a_number_stands_out_is_counted_by_hand():
    """Cells of 30 genes: ten ones and no two; the bound for one is 2 x 20 zeros x 0 twos, against 10 x 9 pairs of ones."""
    x = sp.csr_matrix(np.tile(np.arange(30) < 10, (25, 1)).astype(np.float32))
    error, share = evidence.dip(x, 0)
    assert share == 0 and np.isclose(error, -np.sqrt(25))
    twos = x.toarray()
    twos[:, 20] = 2  # now the bound is 2 x 19 x 1 = 38, against 90
    error, share = evidence.dip(sp.csr_matrix(twos), 0)
    assert np.isclose(share, 38 / 90) and np.isclose(error, -5)
    assert evidence.dip(x[:10], 0) == (0.0, 1.0)


@pytest.mark.parametrize("name", DISGUISES)
def test_whole_numbers_that_are_no_counts_are_refused_by_name(name):
    make, word = DISGUISES[name]
    for seed in range(3):
        with pytest.raises(NotCounts, match=word) as caught:
            find_counts(anndata.AnnData(make(drawn(seed, genes=400))))
        assert "round" not in str(caught.value).replace("rounded", "")


@pytest.mark.parametrize("name", FRACTIONS)
def test_transformed_values_are_named(name):
    make, word = FRACTIONS[name]
    with pytest.raises(NotCounts, match=word) as caught:
        find_counts(anndata.AnnData(make(drawn(0))))
    assert ".round()" not in str(caught.value)


def test_corrected_counts_are_told_to_be_rounded():
    x = drawn(0).toarray()
    x[::7] *= 0.93
    with pytest.raises(NotCounts, match=r"\.round\(\)"):
        find_counts(anndata.AnnData(sp.csr_matrix(x)))


def test_counts_times_a_number_are_divided_and_that_is_said():
    x = drawn(1)
    found = find_counts(anndata.AnnData(x * 10))
    assert (found.matrix != x).nnz == 0 and "every value is 10 times a count" in found.source


def test_clipped_and_downsampled_counts_are_doubted_aloud():
    x = drawn(2, depth=30)
    assert "looks clipped" in " ".join(find_counts(anndata.AnnData(values(x, lambda v: np.minimum(v, 5)))).notes)
    rng = np.random.default_rng(0)
    even = np.array([rng.multivariate_hypergeometric(row, 300) for row in x.toarray().astype(int) if row.sum() > 300])
    assert "300 counts in every cell" in " ".join(
        find_counts(anndata.AnnData(sp.csr_matrix(even.astype(np.float32)))).notes
    )
    assert find_counts(anndata.AnnData(x)).notes == ()


def test_totals_in_obs_speak():
    x = drawn(3)
    adata = anndata.AnnData(x)
    adata.obs["n_counts"] = np.asarray(x.sum(axis=1)).ravel()
    assert find_counts(adata).notes == ()
    adata.obs["n_counts"] /= 3
    assert "larger totals than obs['n_counts']" in " ".join(find_counts(adata).notes)


def test_every_real_matrix_is_taken_without_doubt_and_its_disguises_are_not():
    for name, x in real_counts():
        reads = name in SMART_SEQ  # their roots are told in 1,500 cells, not in 200
        for genes in (slice(None), np.argsort(-x.mean(axis=0).A1)[:300]):
            part = sp.csr_matrix(x[:, genes])
            assert (evidence.refusal(part), evidence.doubt(part), evidence.common_divisor(part)) == (None, None, 1), (
                name
            )
            for disguise in ("halves", "rounded log1p", *([] if reads else ["rounded roots"])):
                whole = sp.csr_matrix(DISGUISES[disguise][0](x)[:, genes])
                assert evidence.refusal(whole) or evidence.doubt(whole), (name, disguise)
        shallow = np.median(np.asarray(x.sum(axis=1)).ravel()) < 10_000  # in deeper cells few logarithms are above one
        for disguise in ("mask", "rounded CPM", "lowest ranks", *(["rounded log1p"] if shallow else [])):
            assert evidence.refusal(DISGUISES[disguise][0](x)) is not None, (name, disguise)


@given(st.integers(1, 9), st.integers(0, 2**31))
def test_a_cell_of_few_values_is_recovered_by_its_total_or_refused(factor, seed):
    rng = np.random.default_rng(seed)
    x = np.vstack([np.pad(np.array([1, 2, 3]) * factor, (0, 37)), rng.poisson(2, (5, 40)) + (np.arange(40) < 15)])
    adata = anndata.AnnData(sp.csr_matrix(np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)))
    with pytest.raises(NotCounts, match="1 cells have fewer than 10 values"):
        find_counts(adata)
    adata.obs["nCount_RNA"] = x.sum(axis=1)
    assert np.array_equal(find_counts(adata).matrix.toarray(), x)


def test_a_provable_recovery_beats_an_unnamed_layer_and_a_named_one_beats_both():
    x = drawn(4)
    log = values(normalised(x, 1e4), np.log1p)
    other = drawn(5, n=x.shape[0] * 2)[: x.shape[0]]
    adata = anndata.AnnData(log, layers={"odd": other})
    assert (find_counts(adata).matrix != x).nnz == 0 and "recovered" in find_counts(adata).source
    adata.layers["counts"] = other
    assert find_counts(adata).source == "layers['counts']"
    adata = anndata.AnnData(values(log, lambda v: v**1.5), layers={"unspliced": x})
    with pytest.raises(NotCounts, match="by its name"):
        find_counts(adata)
    assert find_counts(adata, layer="unspliced").source == "layers['unspliced']"


def test_what_is_wrong_in_genes_that_the_reference_does_not_use_does_not_matter():
    reference = hub_reference("pbmc-10x-scanvi")
    adata = plain_query("pbmc-10x-scanvi")[:300].copy()
    expected = align(reference, adata, batch_key="batch")
    unused = np.flatnonzero(~np.isin(adata.var_names, reference.schema.genes))
    x = adata.X.toarray()
    x[5, unused[0]], x[6, unused[1]], x[7, unused[2]] = np.nan, 0.5, -1
    adata.X = sp.csr_matrix(x)
    assert (align(reference, adata, batch_key="batch").counts != expected.counts).nnz == 0
    used = np.flatnonzero(np.isin(adata.var_names, reference.schema.genes))[3]
    x[8, used] = 0.25
    adata.X = sp.csr_matrix(x)
    with pytest.raises(
        NotCounts, match=f"fractions .1 of .*cell {adata.obs_names[8]} gene {adata.var_names[used]} 0.25"
    ):
        align(reference, adata, batch_key="batch")


def test_raw_gives_names_to_var_and_var_to_raw():
    x = drawn(6)
    var = pd.DataFrame({"symbol": [f"SYM{i}" for i in range(x.shape[1])]}, index=[f"id{i}" for i in range(x.shape[1])])
    adata = anndata.AnnData(x, var=var)
    adata.raw = anndata.AnnData(x, var=var[[]])
    assert cells_of(adata).places[-1].var["symbol"].tolist() == var["symbol"].tolist()


def test_the_places_of_real_files():
    reference = hub_reference("lung-lines-scvi")
    expected = align(reference, plain_query("lung-lines-scvi"), batch_key="batch")
    found = align(reference, anndata.read_h5ad(case("binary_layer")), batch_key="batch")
    assert "recovered from log1p-normalised X" in found.alignment.counts_from
    assert (found.counts != expected.counts).nnz == 0
    found = align(reference, anndata.read_h5ad(case("raw_has_more")), batch_key="batch")
    assert found.alignment.counts_from == "raw.X" and found.alignment.n_found == found.alignment.n_genes
    assert any("raw.X were taken, not those of X" in m for m in found.alignment.messages)
    assert (found.counts != expected.counts).nnz == 0
    with pytest.raises(NotCounts, match="logarithms that were rounded"):
        align(reference, anndata.read_h5ad(case("rounded_log")), batch_key="batch")
    reference = hub_reference("pbmc-10x-scanvi")
    for backed in (None, "r"):
        found = align(reference, anndata.read_h5ad(case("counts_without_x"), backed=backed), batch_key="batch")
        assert found.alignment.counts_from == "layers['counts']"

"""Genes and regions of a query, in whatever form it brings them, some of them or one kind alone, against a MULTIVI reference."""

from types import SimpleNamespace

import numpy as np
import pytest

import scgraft
from scgraft.errors import GenesNotFound
from scgraft.expression.generate import generate
from scgraft.graft.embed import embed
from scgraft.model.build import build, make_cells, pick_device
from scgraft.query.align import align
from scgraft.query.read import read_query
from scgraft.reference.counts import own_query
from scgraft.reference.stored_cells import read_cells
from scgraft.testing.laws import check_laws
from scgraft.values.graft import FitConfig
from tiny_multivi import GENES, REGIONS, draw, modalities, write_10x, write_h5mu, write_multivi_folder

QUICK = FitConfig(device="cpu", progress=False)


@pytest.fixture(scope="module", params=["anndata", "mudata"])
def reference(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("multivi") / "model"
    return scgraft.load_reference(write_multivi_folder(folder, mudata=request.param == "mudata"))


def query_of(**options):
    return draw(60, ("q0",), seed=9, **options)


def posteriors(reference, query):
    model = build(reference, pick_device("cpu"))
    cells = make_cells(model, query, query.codes.astype(np.int64), pick_device("cpu"))
    return [mean.numpy() for mean, _ in model.encode_kinds(cells, {})]


def test_a_reference_takes_genes_and_regions(reference):
    assert reference.schema.genes.tolist() == [*GENES, *REGIONS]
    assert "24 genes and 30 regions" in repr(reference)
    assert "of its 24 genes or of its 30 regions, or of both" in scgraft.describe(reference).surgery.query_needs[0]
    assert reference.schema.kinds == {"genes": slice(0, 24), "regions": slice(24, 54)}
    assert len(reference.latent.mean) == 90 and reference.library.shape == (90, 2)
    lacks = reference.library == 0
    assert lacks[:, 0].sum() == 30 and lacks[:, 1].sum() == 30 and not lacks.all(axis=1).any()


def test_every_form_of_a_query_gives_the_same_cells(reference, tmp_path):
    adata = query_of(paired=False)
    expected = align(reference, adata, batch_key="batch")
    in_memory = SimpleNamespace(mod=modalities(adata), obs=adata.obs, obsmap={})
    of_file = read_query(write_h5mu(adata, tmp_path / "query.h5mu"))
    of_10x = read_query(write_10x(adata, tmp_path / "filtered_feature_bc_matrix.h5"))
    of_10x.obs = adata.obs.copy()
    for other in (of_file, in_memory, of_10x, adata[:, ::-1].copy()):
        found = align(reference, other, batch_key="batch")
        assert (found.counts != expected.counts).nnz == 0
        assert found.alignment.n_found == 54 and found.alignment.lacking == ()
    assert expected.alignment.matched_by == {"var_names": 54}


@pytest.mark.parametrize("spelled", ["{0}:{1}-{2}", "{0}-{1}-{2}", "{0}_{1}_{2}"])
def test_regions_are_found_however_they_are_written(reference, spelled):
    adata = query_of()
    parts = [name.replace("-", ":").split(":") for name in REGIONS]
    adata.var_names = [*GENES, *(spelled.format(*part) for part in parts)]
    found = align(reference, adata, batch_key="batch").alignment
    assert found.n_found == 54
    exact = spelled == "{0}:{1}-{2}"
    assert found.matched_by == ({"var_names": 54} if exact else {"var_names": 24, "regions in another spelling": 30})


@pytest.mark.parametrize(("kept", "lacking", "number"), [(GENES, "regions", 0), (REGIONS, "genes", 1)])
def test_a_query_of_one_kind_is_mapped_by_that_encoder_alone(reference, kept, lacking, number):
    query = align(reference, query_of()[:, kept].copy(), batch_key="batch", drop_empty=True)
    assert query.alignment.lacking == (lacking,) and query.alignment.found_weight == pytest.approx(1)
    assert any(f"The query has no {lacking}" in message for message in query.alignment.messages)
    latent = embed(reference, query, scgraft.fit(reference, query, QUICK), device="cpu")
    np.testing.assert_array_equal(latent.mean, posteriors(reference, query)[number])


def test_a_paired_cell_is_the_mean_of_both(reference):
    query = align(reference, query_of(paired=False), batch_key="batch")
    latent = embed(reference, query, scgraft.fit(reference, query, QUICK), device="cpu").mean
    genes, regions, _ = posteriors(reference, query)
    share = np.exp(reference.weights["mod_weights"][:2])
    share /= share.sum()
    expected = share[0] * genes + share[1] * regions
    expected[1::3], expected[2::3] = regions[1::3], genes[2::3]
    np.testing.assert_allclose(latent, expected, atol=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_another_set_of_peaks_is_named_with_what_to_do(reference, whole):
    adata = query_of()
    shifted = [f"chr1:{1000 * i + 17}-{1000 * i + 517}" for i in range(len(REGIONS))]
    adata.var_names = [*GENES, *shifted]
    adata = adata if whole else adata[:, shifted].copy()
    with pytest.raises(
        GenesNotFound,
        match=r"0 of the reference's 30 regions .* another set of peaks.* Count the query's fragments again",
    ):
        scgraft.map_query(reference, adata, batch_key="batch", calibration=None)


def test_cells_without_genes_and_regions_are_named(reference):
    adata = query_of()
    adata.X.data[adata.X.indptr[3] : adata.X.indptr[4]] = 0
    with pytest.raises(scgraft.errors.EmptyCells, match="c9_3"):
        align(reference, adata, batch_key="batch")


@pytest.mark.parametrize("kept", [[*GENES, *REGIONS], GENES, REGIONS], ids=["both", "genes", "regions"])
def test_labels_novelty_and_verdict_of_queries_with_and_without_a_kind(reference, kept, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    adata = query_of(paired=len(kept) < 54)[:, kept].copy()
    mapped = scgraft.map_query(reference, adata, batch_key="batch", labels=["cell_type"], config=QUICK, drop_empty=True)
    made = mapped.calibration["cell_type"]
    assert made.source == "stored counts"
    np.testing.assert_array_equal(made.classifier.genes, np.isin(reference.schema.genes, kept))
    assert mapped.verdict.light in ("green", "amber", "red") and np.isfinite(mapped.novelty.score).all()
    labels = mapped.labels["cell_type"]
    right = (labels.label == adata.obs.loc[mapped.latent.cells, "cell_type"].to_numpy()).mean()
    assert right > 0.8  # by chance a third


def test_zeros_and_ones_of_regions_are_detected_and_genes_are_not_accused(reference):
    adata = query_of()
    at = adata.X.indices >= len(GENES)
    adata.X.data[at] = 1
    said = [m for m in align(reference, adata, batch_key="batch").alignment.messages if "Zeros and ones" in m]
    assert len(said) == 1 and "counts of regions" in said[0]


@pytest.mark.parametrize("weights", ["equal", "cell"])
@pytest.mark.parametrize("proteins", [False, True])
def test_the_laws_hold(tmp_path, weights, proteins):
    folder = write_multivi_folder(tmp_path / "model", mudata=proteins, proteins=proteins, weights=weights, encode=True)
    reference = scgraft.load_reference(folder)
    check_laws(reference, align(reference, query_of(paired=False, proteins=proteins), batch_key="batch"))


def test_weights_of_each_cell_are_the_reference_s_and_a_query_gets_their_mean(tmp_path):
    reference = scgraft.load_reference(write_multivi_folder(tmp_path / "model", weights="cell"))
    own = own_query(reference, read_cells(reference.adata_path))
    by_mean = embed(reference, own, device="cpu").mean
    paired = np.arange(90) % 3 == 0
    np.testing.assert_allclose(by_mean[~paired], reference.latent.mean[~paired], atol=1e-6)
    assert (np.abs(by_mean - reference.latent.mean)[paired].max(axis=1) > 1e-3).all()
    genes, regions, _ = posteriors(reference, own)
    share = np.exp(reference.weights["mod_weights"].astype(float))
    share = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)[:2]
    expected = (share[0] * genes + share[1] * regions) / share.sum()
    np.testing.assert_allclose(by_mean[paired], expected[paired], atol=1e-5)
    said = " ".join(align(reference, query_of(), batch_key="batch").alignment.messages)
    assert f"mean weights (genes {share[0] / share.sum():.2f}, regions {share[1] / share.sum():.2f})" in said


def test_proteins_beside_genes_and_regions_enter_and_are_estimated(tmp_path):
    reference = scgraft.load_reference(write_multivi_folder(tmp_path / "model", mudata=True, proteins=True))
    adata = query_of(proteins=True)
    query = align(reference, adata, batch_key="batch")
    assert query.blocks["proteins"].measured.all()
    without = adata.copy()
    del without.obsm["prot"]
    missing = align(reference, without, batch_key="batch")
    graft = scgraft.fit(reference, query, QUICK)
    all_kinds, two = (embed(reference, cells, graft, device="cpu").mean for cells in (query, missing))
    genes, regions, proteins = posteriors(reference, query)
    share = np.exp(reference.weights["mod_weights"])
    np.testing.assert_allclose(
        all_kinds, (share[0] * genes + share[1] * regions + share[2] * proteins) / share.sum(), atol=1e-5
    )
    np.testing.assert_allclose(two, (share[0] * genes + share[1] * regions) / share[:2].sum(), atol=1e-5)
    found = scgraft.proteins(reference, scgraft.query_cells(reference, missing, graft), graft)
    assert found.neighbours.shape == (60, 3) and np.isfinite(found.denoised).all()
    with pytest.raises(scgraft.errors.NotCounts, match="proteins"):
        wrong = adata.copy()
        wrong.obsm["prot"] = np.log1p(wrong.obsm["prot"])
        align(reference, wrong, batch_key="batch")


def test_a_mudata_query_of_a_reference_of_genes_has_its_regions_set_aside(tmp_path):
    folder, adata = scgraft.testing.example()
    reference = scgraft.load_reference(folder)
    regions = draw(adata.n_obs, ("q",))[:, REGIONS].copy()
    regions.obs_names = adata.obs_names
    mods = {"rna": adata, "atac": regions}
    query = align(reference, SimpleNamespace(mod=mods, obs=adata.obs, obsmap={}), batch_key="batch")
    expected = align(reference, adata, batch_key="batch")
    assert (query.counts != expected.counts).nnz == 0 and len(query.alignment.set_aside) == len(REGIONS)


def test_cells_drawn_from_the_model_have_the_kinds_that_they_had(reference):
    made = generate(reference, np.arange(90), seed=1)
    genes, regions = made.counts[:, :24].toarray(), made.counts[:, 24:].toarray()
    assert set(np.unique(regions)) <= {0, 1} and genes.max() > 1
    assert not genes[1::3].any() and not regions[2::3].any() and genes[::3].any() and regions[::3].any()

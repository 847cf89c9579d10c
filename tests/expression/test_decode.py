"""Expression from latents: scvi-tools' own numbers, the laws of averages, and counts with the right moments."""

from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats

from chance import sigmas
from golden_cells import cells_of
from scgraft import errors
from scgraft.expression.cells import LatentCells, query_cells, reference_cells
from scgraft.expression.decode import decode, decoder_inputs, normalized_expression, posterior_predictive
from scgraft.expression.draws import draw_counts, draw_negative_binomial
from scgraft.graft.fit import fit
from scgraft.model.build import build
from scgraft.model.vae import Expression
from scgraft.reference import scvi_format
from scgraft.reference.hub import fetch
from scgraft.testing import configs
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.reference import Latent
from shared_files import golden_folders
from tiny import pair, reference_of

RANDOM = FitConfig(epochs=0, start="random", device="cpu", force=True)
MINI = "latent_posterior_parameters"
FOLDERS = golden_folders("scvi", "scanvi", "seed0", "seed1")


def close(found, expected, tolerance=1e-5):
    expected = np.asarray(expected, np.float64)
    assert np.abs(found - expected).max() <= tolerance * max(expected.std(), np.abs(expected).mean())


@pytest.mark.skipif(not FOLDERS, reason="needs shared/golden, which is not beside this checkout")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_expression_from_fixed_latents_equals_scvi_tools(folder):
    reference = scvi_format.read(fetch(folder))
    with np.load(folder / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    if "ref_px_scale" not in golden or reference.hyper.gene_likelihood == "normal":
        pytest.skip("scvi-tools has no frequency for a normal likelihood")
    counts = folder / "ref_counts.h5ad"
    adata = anndata.read_h5ad(counts if counts.exists() else folder / "adata.h5ad")
    query, z = cells_of(adata, reference), golden["ref_z_fixed"]
    n = len(z)
    library = np.exp(golden["ref_library"].ravel()).astype(np.float32)
    part = LatentCells(
        Latent(z, np.ones_like(z), query.cells[:n]),
        query.codes[:n].astype(np.int64),
        query.continuous[:n],
        library,
        None if query.size_factor is None else query.size_factor[:n],
        None if query.label_codes is None else query.label_codes[:n].astype(np.int64),
    )
    close(normalized_expression(reference, part, device="cpu"), golden["ref_px_scale"])
    counts_mean = normalized_expression(reference, part, library_size="observed", device="cpu")
    close(counts_mean, golden.get("ref_px_mu", golden.get("ref_px_rate")))
    if "ref_tb1_px_scale" in golden and len(reference.schema.batches) > 1:
        other = normalized_expression(reference, part, batch=reference.schema.batches[1], device="cpu")
        close(other, golden["ref_tb1_px_scale"])


@settings(max_examples=12)
@given(configs())
def test_reference_and_query_cells_decode_alike(config):
    reference, query = pair(config)
    graft = fit(reference, query, RANDOM)
    own, mapped = reference_cells(reference), query_cells(reference, query, graft, device="cpu")
    plain = normalized_expression(reference, own, device="cpu")
    assert np.array_equal(plain, normalized_expression(reference, own, graft, device="cpu"))  # law 2
    if not reference.hyper.use_size_factor:
        if reference.hyper.gene_likelihood != "bernoulli":  # a peak is open by a probability of its own, not by a share
            assert np.allclose(plain.sum(axis=1), 1, atol=1e-4)
        ten = normalized_expression(reference, own, library_size=1e4, device="cpu")
        assert np.allclose(ten, plain * 1e4, rtol=1e-5)
    batches = (*reference.schema.batches, *graft.batches)
    each = [normalized_expression(reference, mapped, graft, batch=b, device="cpu") for b in batches]
    mean = normalized_expression(reference, mapped, graft, batch=batches, device="cpu")
    assert np.allclose(mean, np.mean(each, axis=0), atol=1e-5 * (1 + np.abs(mean).max()))
    back = normalized_expression(reference, mapped, graft, device="cpu")
    for code, batch in enumerate(batches):
        own_batch = mapped.codes[:, 0] == code
        assert np.allclose(back[own_batch], each[batches.index(batch)][own_batch], atol=1e-6 * (1 + back.max()))


CONFIG = TinyConfig(minified=MINI, encode_covariates=True)


def test_genes_out_and_subsets():
    reference = reference_of(CONFIG)
    cells = reference_cells(reference)
    whole = normalized_expression(reference, cells, device="cpu")
    genes = [str(g) for g in reference.schema.genes[[5, 2]]]
    assert np.array_equal(normalized_expression(reference, cells, genes=genes, device="cpu"), whole[:, [5, 2]])
    out = np.zeros((60, 2), np.float64)
    assert normalized_expression(reference, cells, genes=genes, out=out, device="cpu") is out
    assert np.allclose(out, whole[:, [5, 2]])
    mask = np.arange(60) % 3 == 0
    assert np.allclose(normalized_expression(reference, cells.take(mask), device="cpu"), whole[mask], atol=1e-7)


def test_draws_from_the_posterior():
    reference = reference_of(CONFIG)
    cells = reference_cells(reference)
    a, b = (normalized_expression(reference, cells, n_samples=3, seed=s, device="cpu") for s in (0, 1))
    assert not np.allclose(a, b)
    assert np.array_equal(a, normalized_expression(reference, cells, n_samples=3, seed=0, device="cpu"))
    narrow = replace(cells, latent=replace(cells.latent, variance=np.full_like(cells.latent.variance, 1e-14)))
    sampled = normalized_expression(reference, narrow, n_samples=2, device="cpu")
    assert np.allclose(sampled, normalized_expression(reference, cells, device="cpu"), atol=1e-6)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson", "normal"])
def test_drawn_counts_have_the_moments_of_their_distribution(likelihood):
    rng = np.random.default_rng(0)
    rate, theta = np.array([0.01, 0.5, 3, 9, 15.9, 40]), np.array([2, 0.4, 4, 0.3, 3, 1.5])
    logits = rng.standard_normal(6)
    n = 40_000
    expand = lambda x: torch.tensor(np.broadcast_to(x, (n, 6)).copy())  # noqa: E731
    parameters = Expression(expand(rate), expand(rate), torch.tensor(theta), expand(logits))
    counts = draw_counts(likelihood, parameters, np.random.default_rng(1)).astype(np.float64)
    keep = 1 / (1 + np.exp(logits)) if likelihood == "zinb" else 1.0
    mean = keep * rate
    second = {"poisson": rate + rate**2, "normal": theta**2 + rate**2}.get(likelihood, rate + rate**2 * (1 + 1 / theta))
    variance = keep * second - mean**2
    assert (np.abs(counts.mean(axis=0) - mean) < 5 * np.sqrt(variance / n)).all()
    assert np.allclose(counts.var(axis=0), variance, rtol=0.15)
    assert (likelihood == "normal") or (counts == np.round(counts)).all()


@pytest.mark.parametrize(("mean", "theta"), [(0.3, 0.5), (4.0, 0.2), (15.0, 8.0), (60.0, 2.0)])
def test_negative_binomials_have_scipys_distribution(mean, theta):
    n = 50_000
    drawn = draw_negative_binomial(np.full(n, mean), np.full(n, theta), np.random.default_rng(0))
    expected = stats.nbinom(theta, theta / (theta + mean))
    for quantile in np.unique(expected.ppf([0.05, 0.3, 0.6, 0.9, 0.999, 0.9999])):
        p = expected.cdf(quantile)
        assert abs((drawn <= quantile).mean() - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4, quantile


def test_posterior_predictive_has_the_mean_of_the_model():
    reference = reference_of(replace(CONFIG, gene_likelihood="nb"))
    cells = reference_cells(reference)
    samples = posterior_predictive(reference, cells, n_samples=300, seed=3, device="cpu")
    assert samples.shape == (60, 30, 300)
    expected = normalized_expression(reference, cells, library_size="observed", n_samples=300, seed=4, device="cpu")
    # Both are means of 300 draws of the latent; the counts are drawn besides. So their variance is at most twice that of the counts'.
    error = np.sqrt(2 * samples.var(axis=2, ddof=1) / 300)
    assert abs(samples.mean(axis=2) - expected).sum() < 1.2 * error.sum()  # 0.8 of it for a normal variable
    assert abs(samples.mean(axis=2).sum() - expected.sum()) < sigmas() * np.sqrt((error**2).sum() * 30)
    again = posterior_predictive(reference, cells, n_samples=300, seed=3, device="cpu")
    assert np.array_equal(samples, again)
    genes = [str(g) for g in reference.schema.genes[:2]]
    few = posterior_predictive(reference, cells, n_samples=300, seed=3, genes=genes, device="cpu")
    assert np.array_equal(few, samples[:, :2])


def test_expected_counts_are_those_before_the_zeros_that_zero_inflation_adds():
    reference = reference_of(replace(CONFIG, gene_likelihood="zinb"))
    cells = reference_cells(reference)
    narrow = replace(cells, latent=replace(cells.latent, variance=np.full_like(cells.latent.variance, 1e-14)))
    expected = normalized_expression(reference, cells, library_size="observed", device="cpu")
    samples = posterior_predictive(reference, narrow, n_samples=300, seed=3, device="cpu")
    drawn = samples.mean(axis=2)
    model, where = build(reference, torch.device("cpu")), torch.device("cpu")
    expression = decode(model, torch.tensor(cells.latent.mean), decoder_inputs(cells, where), {}, None)
    kept = torch.sigmoid(-expression.zi_logits).numpy()
    assert kept.mean() < 0.9  # else nothing is tested
    # Counts of 30 genes are drawn independently given the latent, which does not vary here; sums over 300 draws are normal.
    error = samples.std(axis=2, ddof=1) / np.sqrt(300)
    assert abs(drawn.sum() - (kept * expected).sum()) < sigmas() * np.sqrt((error**2).sum())


def test_a_batch_moves_the_expression_and_no_code_is_changed_in_place():
    reference, query = pair(CONFIG)
    graft = fit(reference, query, RANDOM)
    cells = query_cells(reference, query, graft, device="cpu")
    before = cells.codes.copy()
    moved = normalized_expression(reference, cells, graft, batch="b0", device="cpu")
    assert not np.allclose(moved, normalized_expression(reference, cells, graft, device="cpu"))
    assert np.array_equal(cells.codes, before)


def test_named_errors():
    reference = reference_of(CONFIG)
    cells = reference_cells(reference)
    with pytest.raises(errors.UnknownBatch, match="no batch 'b7' to decode under; known are b0, b1"):
        normalized_expression(reference, cells, batch="b7")
    with pytest.raises(errors.UnknownBatch, match="none was named"):
        normalized_expression(reference, cells, batch=[])
    with pytest.raises(errors.GenesNotFound, match="no gene 'GENE'"):
        normalized_expression(reference, cells, genes=["GENE"])
    unknown = replace(cells, library=None)
    assert normalized_expression(reference, unknown).shape == (60, 30)
    with pytest.raises(errors.UnsupportedModel, match="library size of these cells is not stored"):
        posterior_predictive(reference, unknown)
    with pytest.raises(errors.NoLabels, match="holds no cells"):
        reference_cells(replace(reference, latent=None))
    other = replace(reference, obs=reference.obs.assign(batch="alien"))
    with pytest.raises(errors.CorruptFile, match="'alien'.*which its model was not trained with"):
        reference_cells(other)


@pytest.mark.parametrize(("mean", "theta"), [(0.3, 0.5), (15.0, 0.1), (60.0, 2.0)])
def test_zero_inflated_negative_binomials_have_their_distribution(mean, theta):
    n, none = 50_000, 0.3
    full = [np.full(n, value, np.float32) for value in (mean, theta, none)]
    drawn = draw_negative_binomial(full[0], full[1], np.random.default_rng(0), full[2])
    expected = stats.nbinom(theta, theta / (theta + mean))
    for quantile in np.unique([0, *expected.ppf([0.3, 0.6, 0.9, 0.999, 0.9999])]):
        p = none + (1 - none) * expected.cdf(quantile)
        assert abs((drawn <= quantile).mean() - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4, quantile

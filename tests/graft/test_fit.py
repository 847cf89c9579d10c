"""The fit: gradients by hand against the obvious version, objectives, receipts, and what happens when it goes wrong."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import multivariate_normal

from scgraft.errors import FitDiverged, ScgraftError, UnknownBatch
from scgraft.graft.embed import embed
from scgraft.graft.fit import choose_cells, fit
from scgraft.graft.levels import level_codes
from scgraft.graft.objective import elbo, mixture_log_density, mixture_tensors, objective_named
from scgraft.model import likelihoods, output
from scgraft.model.build import build, make_cells
from scgraft.model.output import OutputLayer, counts_log_likelihood
from scgraft.model.stored import StoredCounts, store_counts
from scgraft.numerics.atlas import atlas_of
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.reference import Latent
from tiny import pair

CPU = torch.device("cpu")
CONFIG = TinyConfig(encode_covariates=True, n_layers=2)


def stored(dense, constant=None):
    position = dense.reshape(-1).nonzero()[:, 0]
    starts = np.concatenate([[0], (dense != 0).sum(1).cumsum(0).numpy()])
    constant = dense.new_zeros(len(dense)) if constant is None else constant
    return StoredCounts(position, dense.reshape(-1)[position], starts, constant)


@example(660, "zinb", 1, 2)  # odds above e^20, where torch's softplus is linear by default
@given(st.integers(0, 2**31), st.sampled_from(["nb", "zinb", "poisson"]), st.integers(1, 6), st.integers(2, 12))
def test_likelihood_by_hand_equals_autograd_in_float64(seed, kind, n, genes):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    h, library = draw(n, 5).relu().requires_grad_(), (draw(n, 1) + 5).requires_grad_()
    weight, bias, theta = 3 * draw(genes, 5), draw(genes), torch.exp(2 * draw(genes))
    dropout, dropout_bias = 10 * draw(genes, 5), draw(genes)
    x = torch.poisson(torch.rand(n, genes, generator=g, dtype=torch.float64) * 3, generator=g)
    x[0] = 0  # a cell without any count
    mu = torch.softmax(h @ weight.T + bias, -1) * library.exp()
    layer = OutputLayer(weight, bias, theta)
    if kind == "zinb":
        slow = likelihoods.log_zinb(x, mu, theta, h @ dropout.T + dropout_bias).sum(1)
        layer = OutputLayer(weight, bias, theta, dropout, dropout_bias)
    elif kind == "nb":
        slow = likelihoods.log_nb(x, mu, theta).sum(1)
    else:
        slow = likelihoods.log_poisson(x, mu).sum(1)
        layer = OutputLayer(weight, bias, None)
    constant = likelihoods.log_counts_constant(x, None if kind == "poisson" else theta).sum(1)
    fast = counts_log_likelihood(h, library, stored(x, constant), layer)
    assert torch.allclose(fast, slow, rtol=1e-9, atol=1e-7)
    factor = draw(n)
    expected = torch.autograd.grad((slow * factor).sum(), [h, library])
    found = torch.autograd.grad((fast * factor).sum(), [h, library])
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9 * float(b.abs().max() + 1))
    alone = counts_log_likelihood(h, library, stored(x, constant), layer, value=False)
    for a, b in zip(torch.autograd.grad((alone * factor).sum(), [h, library]), found, strict=True):
        assert torch.equal(a, b)


def test_blocks_of_the_likelihood_do_not_change_it(monkeypatch):
    g = torch.Generator().manual_seed(3)
    h, library, x = torch.randn(11, 4, generator=g), torch.full((11, 1), 3.0), torch.poisson(torch.rand(11, 6) * 2)
    layer = OutputLayer(torch.randn(6, 4, generator=g), torch.zeros(6), torch.rand(11, 6, generator=g) + 0.5)
    h.requires_grad_()
    results = []
    for entries in (10**6, 18):
        monkeypatch.setattr(output, "BLOCK_ENTRIES", entries)
        value = counts_log_likelihood(h, library, stored(x), layer)
        results.append((value.detach(), torch.autograd.grad(value.sum(), h)[0]))
    for whole, blocks in zip(*results, strict=True):
        assert torch.allclose(whole, blocks, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize(
    ("model", "dispersion"),
    [("SCVI", "gene"), ("SCVI", "gene-label"), ("SCVI", "gene-batch"), ("SCANVI", "gene"), ("SCANVI", "gene-cell")],
)
def test_the_loss_and_its_gradient_are_the_same_from_stored_and_dense_counts(likelihood, model, library, dispersion):
    config = replace(
        CONFIG, gene_likelihood=likelihood, model=model, use_observed_lib_size=library, dispersion=dispersion
    )
    reference, query = pair(config)
    graft = fit(reference, query, FitConfig(epochs=0))
    net = build(reference, CPU, torch.float64)
    assert net.by_hand == (likelihood == "poisson" or dispersion in ("gene", "gene-label"))
    codes = level_codes(query, reference.schema, graft.levels)
    cells = make_cells(net, query, codes, CPU, torch.float64)
    rows = {n: torch.tensor(r, dtype=torch.float64) for n, r in graft.rows.items()}
    trained = [rows[n].requires_grad_() for n in rows if n.startswith(("z_encoder", "decoder"))]
    noise = torch.randn(len(query.cells), net.noise_width, dtype=torch.float64)
    everything = np.arange(len(query.cells))
    where = torch.from_numpy(everything)
    dense = torch.tensor(query.counts.toarray(), dtype=torch.float64)
    losses, gradients = [], []
    for counts in (dense, net.store(query.counts, cells).take(everything, where)):
        loss = elbo(net.terms(cells.take(where, counts), rows, noise), 1.0)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.mean(), trained))
    assert torch.allclose(losses[0], losses[1], rtol=1e-8, atol=1e-6)
    for slow, fast in zip(*gradients, strict=True):
        assert slow.abs().max() > 0
        assert torch.allclose(slow, fast, rtol=1e-6, atol=1e-8 * float(slow.abs().max()))


@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 5), st.integers(0, 9))
def test_mini_batches_hold_the_counts_of_their_cells(seed, n, genes, size):
    rng = np.random.default_rng(seed)
    counts = sparse.random(n, genes, 0.4, format="csr", dtype=np.float32, rng=rng)
    index = rng.integers(0, n, size)
    store = store_counts(counts, None, torch.zeros(1))
    taken = store.take(index, torch.from_numpy(index))
    assert np.array_equal(taken.dense(genes).numpy(), counts[index].toarray())
    assert np.allclose(taken.sum(taken.value).numpy(), counts[index].toarray().sum(1), rtol=1e-6)


def test_cached_product_equals_the_dense_one():
    reference, query = pair(CONFIG)
    net = build(reference, CPU, torch.float64)
    dense = np.log1p(query.counts.toarray().astype(np.float64))
    weight = reference.weights["z_encoder.encoder.fc_layers.Layer 0.0.weight"][:, : dense.shape[1]]
    assert np.allclose(net.product(query.counts).numpy(), dense @ weight.T.astype(np.float64), rtol=1e-6, atol=1e-6)


def test_fitting_lowers_the_held_out_loss_and_says_what_it_did():
    reference, query = pair(CONFIG, n_cells=120)
    graft = fit(reference, query, FitConfig(objective="atlas", max_steps=100, device="cpu"))
    record = graft.record
    assert record.trained and record.loss[-1][1] < record.loss[0][1]
    assert record.n_parameters == sum(r.size for n, r in graft.rows.items() if n.startswith(("z_enc", "decoder")))
    assert set(record.moved) == {"new 1", "new 2"} and min(record.moved.values()) > 0
    assert record.reference_unchanged[0] == record.reference_unchanged[1] != ""


@pytest.mark.parametrize("objective", ["elbo", "atlas", "match"])
@pytest.mark.parametrize("model", ["SCVI", "SCANVI"])
def test_every_objective_runs(objective, model):
    reference, query = pair(replace(CONFIG, model=model))
    graft = fit(reference, query, FitConfig(objective=objective, max_steps=5))
    assert graft.record.objective == objective


def test_atlas_without_a_latent_falls_back_to_elbo_and_says_so():
    reference, query = pair(CONFIG)
    graft = fit(replace(reference, latent=None), query, FitConfig(max_steps=2))
    assert graft.record.objective == "elbo" and graft.record.config.objective == "match"


def test_unknown_objective():
    with pytest.raises(ScgraftError, match="no objective 'energy'; choose one of atlas, elbo, match"):
        objective_named("energy")


def test_known_batches_only_means_nothing_to_train():
    reference, query = pair(CONFIG, batches=CONFIG.batches)
    graft = fit(reference, query)
    assert not graft.record.trained and not graft.rows and "knows" in graft.record.reason
    assert np.isfinite(embed(reference, query, graft).mean).all()


def test_embedding_in_blocks_is_embedding_at_once(monkeypatch):
    reference, query = pair(CONFIG, n_cells=23)
    graft = fit(reference, query, FitConfig(max_steps=3))
    whole = embed(reference, query, graft)
    for block in (1, 5, 23):
        monkeypatch.setattr(sys.modules["scgraft.graft.embed"], "BLOCK", block)
        blocks = embed(reference, query, graft)
        assert np.allclose(whole.mean, blocks.mean, rtol=1e-5, atol=1e-6)
        assert np.allclose(whole.variance, blocks.variance, rtol=1e-5, atol=1e-6)


def test_unknown_batch_at_embedding_is_an_error_naming_it():
    reference, query = pair(CONFIG)
    with pytest.raises(UnknownBatch, match="'new 1', 'new 2'.*neither the reference nor the graft knows"):
        embed(reference, query)


def test_nan_keeps_the_last_finite_columns():
    reference, query = pair(CONFIG, n_cells=40)
    with pytest.raises(FitDiverged, match="became") as caught:
        fit(reference, query, FitConfig(objective="atlas", learning_rate=1e30, max_steps=60, device="cpu"))
    graft = caught.value.graft
    assert all(np.isfinite(row).all() for row in graft.rows.values())


def test_fit_cells_limits_each_batch():
    _, query = pair(CONFIG, n_cells=200)
    chosen, n_held = choose_cells(query, FitConfig(fit_cells=30))
    codes = query.codes[chosen, 0]
    assert sorted(np.bincount(codes)[np.unique(codes)]) == [30, 30]
    assert len(set(chosen)) == 60 and n_held == 6
    chosen, n_held = choose_cells(query, FitConfig(fit_cells=None, holdout=0.0))
    assert sorted(chosen) == list(range(len(query.cells))) and n_held == 0


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5))
def test_mixture_density_equals_scipy(seed, components, d):
    rng = np.random.default_rng(seed)
    latent = Latent(
        rng.standard_normal((components * 6, d)).astype(np.float32),
        rng.uniform(0.1, 1, (components * 6, d)).astype(np.float32),
        np.arange(components * 6).astype(str),
    )
    mixture = atlas_of(latent.mean, latent.variance, components=components).mixture
    points = rng.standard_normal((7, d))
    expected = sum(
        w * multivariate_normal(m, np.diag(v)).pdf(points).reshape(-1)
        for w, m, v in zip(mixture.weight, mixture.mean, mixture.variance, strict=True)
    )
    found = mixture_log_density(torch.tensor(points), mixture_tensors(mixture, torch.zeros(1, dtype=torch.float64)))
    assert np.allclose(found.numpy(), np.log(expected), rtol=1e-4, atol=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 30))
def test_mixture_keeps_the_first_two_moments(seed, components):
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal((90, 3)).astype(np.float32) * 3
    variance = rng.uniform(0.1, 1, (90, 3)).astype(np.float32)
    mixture = atlas_of(mean, variance, components=components).mixture
    centre = mixture.weight @ mixture.mean
    spread = mixture.weight @ (mixture.variance + mixture.mean**2) - centre**2
    assert np.allclose(centre, mean.mean(0), atol=1e-4)
    assert np.allclose(spread, mean.var(0) + variance.mean(0), rtol=1e-3)

"""Law 10: models saved by every scvi-tools version load, and give scvi-tools' own numbers.

Where scvi-tools' extension is wrong (more than one covariate; a single level), the golden value is the *reference*
model's latent: reference cells keep it after our surgery.
"""

import json

import anndata
import numpy as np
import pytest
import torch

from golden_cells import cells_of
from scgraft.graft.embed import embed
from scgraft.graft.start import start_rows
from scgraft.labels.votes import classify
from scgraft.model.build import build, graft_rows, make_cells
from scgraft.model.families import family_of
from scgraft.model.likelihoods import kl_normal
from scgraft.reference import scvi_format
from scgraft.reference.hub import fetch
from scgraft.values.graft import FitConfig, FitRecord, Graft
from shared_files import golden_folders

CPU = torch.device("cpu")
FOLDERS = golden_folders("scvi", "scanvi", "seed0", "seed1")
pytestmark = pytest.mark.skipif(not FOLDERS, reason="needs shared/golden, which is not beside this checkout")
folders = pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)


def load(folder):
    reference = scvi_format.read(fetch(folder))
    with np.load(folder / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    counts = folder / "ref_counts.h5ad"
    adata = anndata.read_h5ad(counts if counts.exists() else folder / "adata.h5ad")
    return reference, golden, cells_of(adata, reference)


def close(found, expected, tolerance):
    expected = np.asarray(expected, np.float64)
    assert np.abs(found - expected).max() <= tolerance * max(expected.std(), np.abs(expected).mean())


@folders
def test_latents_equal_scvi_tools(folder):
    reference, golden, query = load(folder)
    latent = embed(reference, query, device="cpu")
    close(latent.mean, golden["ref_qzm"], 1e-5)
    close(latent.variance, golden["ref_qzv"], 1e-5)
    if reference.latent is not None:
        close(reference.latent.mean, golden["ref_qzm"], 1e-5)
        close(reference.latent.variance, golden["ref_qzv"], 1e-5)


@folders
def test_reconstruction_and_elbo_terms_equal_scvi_tools(folder):
    reference, golden, query = load(folder)
    z = torch.tensor(golden["ref_z_fixed"])
    n = len(z)
    model = build(reference, CPU)
    counts = torch.tensor(query.counts[:n].toarray())
    cells = make_cells(model, query, query.codes.astype(np.int64), CPU).take(torch.arange(n), counts)
    mean, variance = model.encode(cells, {})
    library, kl_library = cells.library, None
    if reference.hyper.models_library:
        library, spread = model.encode_library(cells, {})
        kl_library = model.kl_library(library, spread, cells, {})
        close(kl_library.numpy(), golden["ref_kl_l"].ravel(), 1e-4)
    expression = model.decode(model.latent(z), library, cells, {})
    reconstruction = -model.log_likelihood(counts, expression)
    close(reconstruction.numpy(), golden["ref_reconstruction_loss"], 1e-4)
    close(kl_normal(mean, variance, 0.0, 1.0).sum(-1).numpy(), golden["ref_kl_z"].ravel(), 1e-4)
    if reference.hyper.gene_likelihood != "normal":
        close(expression.scale.numpy(), golden["ref_px_scale"], 1e-5)
    if "ref_px_theta" in golden:
        theta = expression.theta.numpy()
        assert np.allclose(theta, golden["ref_px_theta"].reshape(-1, theta.shape[-1]), rtol=1e-4)


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name.startswith("scanvi")], ids=lambda f: f.name)
def test_classifier_equals_scvi_tools(folder):
    reference, golden, query = load(folder)
    expected = json.loads((folder / "golden.json").read_text())
    assert list(reference.schema.labels) == expected["predict_columns"]
    found = classify(reference, embed(reference, query, device="cpu"), device="cpu")
    assert np.abs(found - golden["ref_predict_soft"]).max() < 1e-5


def graft_of(reference, query, rows):
    known = reference.schema.levels
    levels = {name: names[len(known[name]) :] for name, names in query.levels.items() if len(names) > len(known[name])}
    return Graft(reference.base, levels, rows, FitRecord(FitConfig(), False, "by hand"))


def appended_rows(reference, golden, query):
    """scvi-tools' random new columns as a graft; None where it misplaces them."""
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    rows = {}
    for key in [k.removeprefix("qnew/") for k in golden if k.startswith("qnew/")]:
        own = [s for s in slots if s.key == key]
        if len(own) != 1 or own[0].levels != own[0].size:
            return None
        rows[own[0].name] = golden[f"qnew/{key}"]
    return rows or None


@folders
def test_a_query_with_scvi_tools_own_columns_has_its_latent(folder):
    reference, golden, _ = load(folder)
    query = cells_of(anndata.read_h5ad(folder / "query.h5ad"), reference)
    rows = appended_rows(reference, golden, query)
    if rows is None:
        pytest.skip("scvi-tools grew nothing here, or grew it in the wrong place")
    latent = embed(reference, query, graft_of(reference, query, rows), device="cpu")
    close(latent.mean, golden["query_qzm"], 1e-5)
    close(latent.variance, golden["query_qzv"], 1e-5)


@folders
def test_reference_cells_keep_their_latent_and_expression_after_surgery(folder):
    reference, golden, query = load(folder)
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    rows = start_rows(reference.weights, slots, dict.fromkeys(reference.schema.levels, 2), start="random")
    levels = dict.fromkeys(reference.schema.levels, ("new 1", "new 2"))
    graft = Graft(reference.base, levels, rows, FitRecord(FitConfig(), False, "by hand"))
    before, after = embed(reference, query, device="cpu"), embed(reference, query, graft, device="cpu")
    assert np.array_equal(before.mean, after.mean) and np.array_equal(before.variance, after.variance)
    close(after.mean, golden["ref_qzm"], 1e-5)
    model = build(reference, CPU)
    cells = make_cells(model, query, query.codes.astype(np.int64), CPU)
    z = torch.tensor(after.mean)
    one, two = (model.decode(z, cells.library, cells, r).scale for r in ({}, graft_rows(graft, CPU)))
    assert torch.equal(one, two)

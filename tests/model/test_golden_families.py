"""LinearSCVI, POISSONVI and PEAKVI give scvi-tools' own numbers; what cannot be mapped is described, with its reason.

The draws of the golden models are stored beside them, so the terms of the loss are compared and not only the latents.
"""

import anndata
import numpy as np
import pytest
import torch

from golden_cells import cells_of
from scgraft.errors import GenesNotFound, UnsupportedModel
from scgraft.expression.cells import query_cells
from scgraft.expression.decode import normalized_expression
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.start import start_rows
from scgraft.mapping.load import load_reference
from scgraft.model.build import build, make_cells
from scgraft.model.families import families, family_of
from scgraft.model.families.linear_scvi import loadings
from scgraft.query.align import align
from scgraft.reference import scvi_format
from scgraft.reference.describe import describe
from scgraft.reference.hub import fetch
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import MODELS, TinyConfig
from scgraft.values.graft import FitConfig, FitRecord, Graft
from shared_files import golden_folders
from tiny import pair, reference_of

CPU = torch.device("cpu")
folders = pytest.mark.parametrize("folder", golden_folders("linear", "poissonvi", "peakvi"), ids=lambda f: f.name)
described = pytest.mark.parametrize("folder", golden_folders("condscvi", "stereoscope"), ids=lambda f: f.name)


def load(folder, data="adata"):
    reference = scvi_format.read(fetch(folder))
    with np.load(folder / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    return reference, golden, cells_of(anndata.read_h5ad(folder / f"{data}.h5ad"), reference)


def first_cells(reference, query, n):
    """Model, and the first n cells with their counts."""
    model = build(reference, CPU)
    cells = make_cells(model, query, query.codes.astype(np.int64), CPU)
    return model, cells.take(torch.arange(n), torch.tensor(query.counts[:n].toarray()))


@folders
def test_latents_of_reference_and_known_query_cells(folder):
    reference, golden, query = load(folder)
    latent = embed(reference, query, device="cpu")
    np.testing.assert_allclose(latent.mean, golden["ref_qzm"], atol=1e-5)
    np.testing.assert_allclose(latent.variance, golden["ref_qzv"], atol=1e-5)
    if "known_qzm" not in golden:
        return
    _, _, query = load(folder, "query")
    rows = zero_rows(reference, query)
    latent = embed(reference, query, rows, device="cpu")
    np.testing.assert_allclose(latent.mean[golden["known_index"]], golden["known_qzm"], atol=1e-5)
    np.testing.assert_allclose(latent.variance[golden["known_index"]], golden["known_qzv"], atol=1e-5)


def zero_rows(reference, query):
    """A graft of the query's new levels, its columns random: no known cell may see them."""
    family = family_of(reference.base.family)
    known = reference.schema.levels
    levels = {name: names[len(known[name]) :] for name, names in query.levels.items() if len(names) > len(known[name])}
    n_new = {name: len(names) for name, names in levels.items()}
    slots = family.slots(reference.hyper, reference.schema, reference.weights)
    rows = start_rows(reference.weights, slots, n_new, start="random")
    return Graft(reference.base, levels, rows, FitRecord(FitConfig(), False, "by hand"))


@folders
def test_terms_of_the_loss_and_decoder_outputs(folder):
    reference, golden, query = load(folder)
    model, cells = first_cells(reference, query, len(golden["ref_draw_z"]))
    draws = [golden[name] for name in ("ref_draw_z", "ref_draw_l") if name in golden]
    terms = model.terms(cells, {}, torch.tensor(np.hstack(draws)))
    np.testing.assert_allclose(terms.counts, golden["ref_loss_rec_reconstruction_loss"], rtol=1e-4)
    kl = golden.get("ref_loss_kl_kl_local", golden.get("ref_loss_kl_kl_divergence_z"))
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4, atol=1e-5)
    if reference.hyper.models_library:
        np.testing.assert_allclose(terms.kl_library, golden["ref_loss_kl_kl_divergence_l"], rtol=1e-4)
    total = (terms.counts + 0.3 * terms.kl + terms.kl_library).mean()
    if reference.base.family == "PEAKVI":  # scvi-tools counts the reconstruction once for each cell of the minibatch
        total = len(kl) * terms.counts.sum() + 0.3 * terms.kl.sum()
    np.testing.assert_allclose(total, golden["ref_loss0.3_total"], rtol=1e-4)
    library = torch.tensor(golden["ref_library"]) if "ref_library" in golden else model.library(cells, {})
    expression = model.decode(torch.tensor(golden["ref_z"]), library, cells, {})
    for name, found in (("px_scale", expression.scale), ("p", expression.scale), ("px_mu", expression.rate)):
        if f"ref_{name}" in golden:
            np.testing.assert_allclose(found, golden[f"ref_{name}"], rtol=1e-4, atol=1e-6)
    if "ref_d" in golden and golden["ref_d"].size > 1:
        np.testing.assert_allclose(library.exp(), golden["ref_d"], rtol=1e-5)


@pytest.mark.parametrize("folder", golden_folders("peakvi"), ids=lambda f: f.name)
def test_peakvi_accessibility_is_that_of_scvi_tools(folder):
    reference, golden, query = load(folder)
    if reference.hyper.latent_distribution == "ln":
        pytest.skip("scvi-tools decodes the mean of a logistic-normal latent without its softmax")
    cells = query_cells(reference, query, device="cpu")
    n = len(golden["ref_api_access"])
    found = normalized_expression(reference, cells.take(slice(0, n)), device="cpu")
    np.testing.assert_allclose(found, golden["ref_api_access"], rtol=1e-4, atol=1e-6)
    full = normalized_expression(reference, cells.take(slice(0, n)), library_size="observed", device="cpu")
    # A model without depth and region factors has no other accessibility.
    np.testing.assert_allclose(full, golden.get("ref_api_access_full", golden["ref_api_access"]), rtol=1e-4, atol=1e-6)


@described
def test_models_for_deconvolution_are_described_and_refused_with_the_reason(folder):
    reference = load_reference(folder)
    facts = describe(reference)
    assert facts.base.family == reference.base.family
    assert "deconvolution" in facts.surgery.refusal and facts.surgery.query_needs == ()
    with pytest.raises(UnsupportedModel, match="label of each cell|neither an encoder nor a latent"):
        align(reference, anndata.read_h5ad(folder / "query.h5ad"))


@pytest.mark.parametrize("name", ["SysVI", "MRVI", "NotAModel"])
def test_other_classes_are_refused_by_name(name):
    with pytest.raises(UnsupportedModel, match=name):
        family_of(name)


def test_every_family_that_maps_has_a_tiny_model():
    mapped = {name for name, family in families().items() if family.refusal is None}
    assert mapped == {
        *MODELS,
        "scPoli",
        "TOTALVI",
        "MULTIVI",
    }  # scgraft.testing.tiny_scpoli, tests/tiny_totalvi.py, tests/tiny_multivi.py


@pytest.mark.parametrize("model", ["LinearSCVI", "POISSONVI", "PEAKVI"])
def test_a_new_batch_is_projected_without_training(model):
    fixed = {"POISSONVI": {"gene_likelihood": "poisson", "use_batch_norm": "none", "use_layer_norm": "both"}}
    fixed["PEAKVI"] = {"use_layer_norm": "both"}
    reference, query = pair(TinyConfig(model=model, **fixed.get(model, {})))
    graft = fit(reference, query, FitConfig(device="cpu"))
    assert not graft.record.trained and "does not see the batch" in graft.record.reason
    assert np.array_equal(
        embed(reference, query, graft).mean, embed(reference, query, zero_rows(reference, query)).mean
    )


def test_loadings_are_the_slopes_of_the_decoder():
    reference, query = pair(TinyConfig(model="LinearSCVI", gene_likelihood="nb"))
    model, cells = first_cells(reference, query, 1)
    z = torch.zeros(1, reference.hyper.n_latent, requires_grad=True)
    logits = model.scale_decoder(z, cells.codes * 0, {})
    slopes = np.stack([torch.autograd.grad(out, z, retain_graph=True)[0][0].numpy() for out in logits[0]])
    np.testing.assert_allclose(loadings(reference), slopes, rtol=1e-5)
    top = describe(reference).loadings[0]
    assert max(top["up"].values()) == pytest.approx(float(slopes[:, 0].max()), abs=1e-4)
    assert min(top["down"].values()) == pytest.approx(float(slopes[:, 0].min()), abs=1e-4)


PEAKS = TinyConfig(model="PEAKVI", use_layer_norm="both")


@pytest.mark.parametrize("spelling", ["chr1-{}-{}", "chr1_{}_{}", "1:{}-{}"])
def test_regions_are_found_in_any_spelling(spelling):
    reference, adata = reference_of(PEAKS), tiny_query(PEAKS)
    own = align(reference, adata, batch_key="batch")
    other = adata.copy()
    other.var_names = [spelling.format(*name.removeprefix("chr1:").split("-")) for name in adata.var_names]
    found = align(reference, other[:, ::-1], batch_key="batch")
    assert (found.counts != own.counts).nnz == 0 and not found.alignment.missing


def test_another_set_of_peaks_is_an_error_that_says_what_to_do():
    reference, adata = reference_of(PEAKS), tiny_query(PEAKS)
    adata.var_names = [f"chr1:{1000 * i + 17}-{1000 * i + 498}" for i in range(adata.n_vars)]
    with pytest.raises(GenesNotFound, match="another set of peaks.*Count the query's fragments again"):
        align(reference, adata)


def test_a_query_of_zeros_and_ones_is_told_apart_from_counts():
    reference, adata = reference_of(PEAKS), tiny_query(PEAKS)
    assert not [m for m in align(reference, adata).alignment.messages if "takes the counts as they are" in m]
    adata.X.data[:] = 1
    (message,) = [m for m in align(reference, adata).alignment.messages if "takes the counts as they are" in m]
    assert "1.00 on average" in message

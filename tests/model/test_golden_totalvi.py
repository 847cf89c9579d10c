"""TOTALVI gives scvi-tools' own numbers in every version: latents, outputs of both decoders, every term of the loss."""

import numpy as np
import pytest
import torch

from golden_folder import cells_in, load, untrained
from scgraft.graft.embed import embed
from scgraft.model.build import build, make_cells
from scgraft.query.align import align
from scgraft.reference.counts import own_query
from scgraft.testing.laws import check_laws
from shared_files import golden_folders

CPU = torch.device("cpu")
folders = pytest.mark.parametrize("folder", golden_folders("totalvi"), ids=lambda f: f.name)


def aligned(folder, reference, *stems):
    adata = cells_in(folder, *stems)
    return align(reference, adata, batch_key=reference.schema.batch_key)


@folders
def test_latents_of_the_reference_and_of_known_query_cells(folder):
    reference, golden = load(folder)
    if "ref_qzm" in golden:  # stored, or encoded from the counts
        np.testing.assert_allclose(reference.latent.mean, golden["ref_qzm"], atol=1e-5)
        np.testing.assert_allclose(reference.latent.variance, golden["ref_qzv"], atol=1e-5)
    if "known_qzm" not in golden:
        return
    query = aligned(folder, reference, "query")
    latent = embed(reference, query, untrained(reference, query), device="cpu")
    np.testing.assert_allclose(latent.mean[golden["known_index"]], golden["known_qzm"], atol=1e-5)
    np.testing.assert_allclose(latent.variance[golden["known_index"]], golden["known_qzv"], atol=1e-5)


@folders
def test_terms_of_the_loss_and_decoder_outputs(folder):
    reference, golden = load(folder)
    if "ref_draw_z" not in golden:
        pytest.skip("the golden file has no draws")
    query, n = own_query(reference, cells_in(folder, "ref_counts", "mdata", "adata")), len(golden["ref_draw_z"])
    model = build(reference, CPU)
    counts = torch.tensor(query.counts[:n].toarray())
    cells = make_cells(model, query, query.codes.astype(np.int64), CPU).take(torch.arange(n), counts)
    draws = [golden["ref_draw_z"], golden["ref_draw_l"], golden["ref_draw_back"]]
    terms = model.terms(cells, {}, torch.tensor(np.hstack(draws)))
    rec = golden["ref_loss_rec_reconst_loss_gene"] + golden["ref_loss_rec_reconst_loss_protein"]
    # The likelihood of large protein counts is 6e-5 off in scvi-tools' own float32.
    np.testing.assert_allclose(terms.counts, rec, rtol=1e-4)
    kl = golden["ref_loss_kl_kl_div_z"] + golden["ref_loss_kl_kl_div_back_pro"]
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4, atol=1e-5)
    if reference.hyper.models_library:
        np.testing.assert_allclose(terms.kl_library, golden["ref_loss_kl_kl_div_l_gene"], rtol=1e-4)
    z = torch.tensor(golden["ref_z"])
    library = torch.tensor(golden["ref_library_gene"]).log()
    expression, proteins = model.decode(z, library, cells, {}), model.decode_proteins(z, cells, {})
    found = {
        "px_scale": expression.scale, "px_rate": expression.rate, "py_back_alpha": proteins.alpha, "py_back_beta": proteins.beta,
        "py_fore_scale": proteins.fore, "py_mixing": proteins.mixing, "py_r": proteins.dispersion,
        "per_batch_efficiency": proteins.efficiency,
    }  # fmt: skip
    for name, value in found.items():
        if f"ref_{name}" in golden:
            np.testing.assert_allclose(value, golden[f"ref_{name}"], rtol=1e-4, atol=1e-5, err_msg=name)
    if "ref_protein_mask" in golden and reference.minified is None:
        np.testing.assert_array_equal(model.measured(cells) > 0, golden["ref_protein_mask"] > 0)


@pytest.mark.parametrize("folder", golden_folders("totalvi")[1::4], ids=lambda f: f.name)
def test_the_laws_hold(folder):
    reference, _ = load(folder)
    check_laws(reference, aligned(folder, reference, "query"))

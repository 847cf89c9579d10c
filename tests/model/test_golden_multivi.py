"""MULTIVI gives scvi-tools' own numbers in every version: latents, outputs of all decoders, every term of the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from golden_folder import cells_in, load, untrained
from scgraft.expression.cells import query_cells
from scgraft.expression.decode import normalized_expression
from scgraft.graft.embed import embed
from scgraft.model.build import build, make_cells
from scgraft.query.align import align
from scgraft.reference.counts import own_query, with_own_cells
from scgraft.testing.laws import check_laws
from shared_files import golden_folders

CPU = torch.device("cpu")
FOLDERS = golden_folders("multivi")
folders = pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)


def aligned(folder, reference):
    return align(reference, cells_in(folder, "query"), batch_key=reference.schema.batch_key)


@folders
def test_latents_of_the_reference_and_of_known_query_cells(folder):
    reference, golden = load(folder)
    np.testing.assert_allclose(
        reference.latent.mean, golden["ref_qzm"], atol=1e-5
    )  # stored, or encoded from the counts
    np.testing.assert_allclose(reference.latent.variance, golden["ref_qzv"], atol=1e-5)
    if "known_qzm" not in golden:
        return
    query = aligned(folder, reference)
    if reference.hyper.weighted_cells:  # scvi-tools gave known query cell i the weights of reference cell i
        own = np.zeros(len(query.cells), np.int64)
        own[golden["known_index"]] = np.arange(len(golden["known_index"]))
        query = replace(query, own=own)
    latent = embed(reference, query, untrained(reference, query), device="cpu")
    np.testing.assert_allclose(latent.mean[golden["known_index"]], golden["known_qzm"], atol=1e-5)
    np.testing.assert_allclose(latent.variance[golden["known_index"]], golden["known_qzv"], atol=1e-5)


@folders
def test_terms_of_the_loss_and_decoder_outputs(folder):
    reference, golden = load(folder)
    query, n = own_query(reference, cells_in(folder, "ref_counts", "mdata", "adata")), len(golden["ref_draw_z"])
    query = with_own_cells(reference, query) if reference.hyper.weighted_cells else query
    model = build(reference, CPU)
    counts = torch.tensor(query.counts[:n].toarray())
    cells = make_cells(model, query, query.codes.astype(np.int64), CPU).take(torch.arange(n), counts)
    draws = [golden[name] for name in ("ref_draw_z", "ref_draw_back") if name in golden]
    terms = model.terms(cells, {}, torch.tensor(np.hstack(draws)))
    rec = sum(golden[f"ref_loss_rec_reconstruction_loss_{kind}"] for kind in ("expression", "accessibility", "protein"))
    np.testing.assert_allclose(terms.counts, rec, rtol=1e-4)
    np.testing.assert_allclose(terms.kl, golden["ref_loss_kl_kl_divergence_z"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.latent, golden["ref_loss_kl_kl_divergence_paired"], rtol=1e-4, atol=1e-5)
    total = (terms.counts + 0.3 * terms.kl + terms.latent).mean()
    np.testing.assert_allclose(total, golden["ref_loss0.3_total"], rtol=1e-4)
    kinds = model.encode_kinds(cells, {})
    for (mean, variance), kind in zip(kinds, ("expr", "acc", "pro"), strict=True):
        np.testing.assert_allclose(mean, golden[f"ref_qzm_{kind}"], atol=1e-5)
        np.testing.assert_allclose(variance, golden[f"ref_qzv_{kind}"], rtol=1e-5, atol=1e-5)
    library = model.predicted_library(cells, {})
    np.testing.assert_allclose(library[:, :1], golden["ref_libsize_expr"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(library[:, 1:].exp(), golden["ref_libsize_acc"], rtol=1e-5, atol=1e-6)
    z = model.latent(torch.tensor(golden["ref_z"]))
    expression, n_genes = model.decode(z, library, cells, {}), model.n_genes
    found = {
        "px_scale": expression.scale[:, :n_genes], "px_rate": expression.rate[:, :n_genes], "p": expression.scale[:, n_genes:],
        "px_r": expression.theta,
    }  # fmt: skip
    if reference.hyper.gene_likelihood == "zinb":
        found["px_dropout"] = expression.zi_logits
    if "ref_py_r" in golden:
        proteins = model.decode_proteins(z, cells, {})
        found |= {
            "py_back_alpha": proteins.alpha, "py_back_beta": proteins.beta, "py_fore_scale": proteins.fore,
            "py_mixing": proteins.mixing, "py_r": proteins.dispersion,
        }  # fmt: skip
    for name, value in found.items():
        if value is not None:
            np.testing.assert_allclose(value, golden[f"ref_{name}"], rtol=1e-4, atol=1e-5, err_msg=name)


@folders
def test_expression_and_accessibility_are_those_of_scvi_tools(folder):
    reference, golden = load(folder)
    query = own_query(reference, cells_in(folder, "ref_counts", "mdata", "adata"))
    if reference.hyper.latent_distribution == "ln" or "ref_api_rna" not in golden:
        pytest.skip("scvi-tools draws, or has no such numbers for cells with weights of their own")
    cells = query_cells(reference, query, device="cpu").take(slice(0, len(golden["ref_api_rna"])))
    found, n_genes = normalized_expression(reference, cells, device="cpu"), golden["ref_api_rna"].shape[1]
    np.testing.assert_allclose(found[:, :n_genes], golden["ref_api_rna"], rtol=1e-4, atol=1e-6)
    if "ref_api_access" in golden:
        np.testing.assert_allclose(found[:, n_genes:], golden["ref_api_access"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("folder", FOLDERS[::3], ids=lambda f: f.name)
def test_the_laws_hold(folder):
    reference, _ = load(folder)
    check_laws(reference, aligned(folder, reference))

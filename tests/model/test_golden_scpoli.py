"""scPoli gives scArches' own numbers: latents, outputs of the decoder, both terms of its loss, and distances to prototypes."""

import anndata
import numpy as np
import pytest
import torch

from golden_folder import load, untrained
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.labels.prototypes import prototype_votes
from scgraft.model.build import build, make_cells
from scgraft.query.align import align
from scgraft.testing.laws import check_laws
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.reference import Latent
from shared_files import golden_folders

CPU = torch.device("cpu")
folders = pytest.mark.parametrize("folder", golden_folders("scpoli"), ids=lambda f: f.name)


def aligned(folder, reference, name):
    return align(reference, anndata.read_h5ad(folder / f"{name}.h5ad"), batch_key=reference.schema.batch_key)


@folders
def test_latents_of_the_reference_and_of_known_query_cells(folder):
    reference, golden = load(folder)
    np.testing.assert_allclose(reference.latent.mean, golden["ref_mean"], atol=1e-5)
    np.testing.assert_allclose(reference.latent.variance, golden["ref_var"], atol=1e-5)
    if "known_mean" not in golden:
        return
    query = aligned(folder, reference, "query")
    latent = embed(reference, query, untrained(reference, query), device="cpu")
    np.testing.assert_allclose(latent.mean[golden["known_index"]], golden["known_mean"], atol=1e-5)
    np.testing.assert_allclose(latent.variance[golden["known_index"]], golden["known_var"], atol=1e-5)


@folders
def test_new_rows_where_scarches_puts_them_give_its_query_latents(folder):
    """scArches' own surgery is exact: its new rows, given to a graft, are the latents of its query model before training."""
    reference, golden = load(folder)
    if "query_mean" not in golden:
        pytest.skip("a model on real cells: its query is compared under the mean of the embeddings")
    query = aligned(folder, reference, "query")
    graft = untrained(reference, query)
    rows = dict(graft.rows)
    for name in rows:
        new = golden.get(f"qnew/{name.split('[')[0]}")
        if new is not None and new.shape == rows[name].shape:
            rows[name] = new
    latent = embed(reference, query, Graft(graft.base, graft.levels, rows, graft.record), device="cpu")
    np.testing.assert_allclose(latent.mean, golden["query_mean"], atol=1e-5)


@folders
def test_the_start_is_the_mean_of_the_embeddings(folder):
    reference, golden = load(folder)
    if "query_mean_embedding_mean" not in golden:
        pytest.skip("only the models on real cells have it")
    query = aligned(folder, reference, "query")
    graft = fit(reference, query, FitConfig(epochs=0))
    latent = embed(reference, query, graft, device="cpu")
    np.testing.assert_allclose(latent.mean, golden["query_mean_embedding_mean"], atol=1e-5)


@folders
def test_terms_of_the_loss_and_decoder_outputs(folder):
    reference, golden = load(folder)
    query, n = aligned(folder, reference, "adata"), len(golden["ref_draw_z"])
    model = build(reference, CPU)
    cells = make_cells(model, query, query.codes.astype(np.int64), CPU)
    cells = cells.take(torch.arange(n), torch.tensor(query.counts[:n].toarray()))
    terms = model.terms(cells, {}, torch.tensor(golden["ref_draw_z"]))
    constant = 0.0
    if reference.hyper.takes_values:  # a squared error is a normal likelihood but for its constant
        constant = len(reference.schema.genes) * 0.5 * np.log(np.pi)
    np.testing.assert_allclose(terms.counts.mean() - constant, golden["ref_loss_recon"], rtol=1e-4)
    np.testing.assert_allclose(terms.kl.mean(), golden["ref_loss_kl"], rtol=1e-4)
    expression = model.decode(torch.tensor(golden["ref_z"]), model.library(cells, {}), cells, {})
    # scArches' decoder returns the shares of the counts, or the values.
    np.testing.assert_allclose(expression.scale, golden["ref_decoded"], rtol=1e-4, atol=1e-7)
    if "ref_dropout" in golden:
        np.testing.assert_allclose(expression.zi_logits, golden["ref_dropout"], rtol=1e-4, atol=1e-5)


@folders
def test_codes_of_conditions_and_their_combination(folder):
    reference, golden = load(folder)
    query, n = aligned(folder, reference, "adata"), len(golden["ref_t_conditions"])
    k = golden["ref_t_conditions"].shape[1]
    np.testing.assert_array_equal(query.codes[:n, :k], golden["ref_t_conditions"])
    np.testing.assert_array_equal(query.codes[:n, -1], golden["ref_t_combined"])


@folders
def test_prototypes_vote_as_scpoli_classifies(folder):
    """With scPoli's own draw from the posterior the shares are its numbers; the package votes at the mean."""
    reference, golden = load(folder)
    own = reference.schema.label_keys
    assert bool(own) == any(name.startswith("ref_classify") for name in golden)
    for key in own:
        draw = golden[f"ref_classify_{key}_draw"]
        mean, variance = (a[: len(draw)] for a in (reference.latent.mean, reference.latent.variance))
        z = Latent(mean + np.sqrt(variance) * draw, variance, reference.latent.cells[: len(draw)])
        classes, share = prototype_votes(reference, z)[key]
        np.testing.assert_array_equal(np.array(classes)[share.argmax(axis=1)], golden[f"ref_classify_{key}_preds"])
        np.testing.assert_allclose(share.max(axis=1), golden[f"ref_classify_{key}_prob"], rtol=1e-4)


@pytest.mark.parametrize("folder", golden_folders("scpoli")[2:], ids=lambda f: f.name)
def test_the_laws_hold(folder):
    reference, _ = load(folder)
    check_laws(reference, aligned(folder, reference, "query"))

"""Estimates of surface proteins: by the nearest reference cells, and by the decoder."""

import numpy as np
import pytest
import torch

import scgraft
from scgraft.errors import UnsupportedModel
from scgraft.expression.decode import decoder_inputs
from scgraft.model.build import build
from tiny import pair
from tiny_totalvi import NAMES, draw, write_totalvi_folder


def test_neighbours_and_decoder_say_what_a_cell_carries(tmp_path):
    reference = scgraft.load_reference(write_totalvi_folder(tmp_path / "reference"))
    adata = draw(30, ("q0",), seed=1)
    del adata.obsm["protein_expression"]
    query = scgraft.align(reference, adata, batch_key="batch")
    graft = scgraft.fit(reference, query)
    found = scgraft.proteins(reference, scgraft.query_cells(reference, query, graft), graft)
    own = draw(60, ("b0", "b1"), seed=0).obsm["protein_expression"].to_numpy()
    assert found.names == tuple(NAMES) and found.neighbours.shape == (30, 4)
    assert (found.neighbours >= own.min(axis=0)).all() and (found.neighbours <= own.max(axis=0)).all()
    assert (
        ((found.foreground >= 0) & (found.foreground <= 1)).all()
        and (found.denoised >= 0).all()
        and (found.spread >= 0).all()
    )
    assert found.to_frame().shape == (30, 4)


def test_the_decoder_is_given_means(tmp_path):
    reference = scgraft.load_reference(write_totalvi_folder(tmp_path / "reference"))
    cells = scgraft.reference_cells(reference)
    found = scgraft.proteins(reference, cells)
    model = build(reference, torch.device("cpu"))
    p = model.decode_proteins(torch.tensor(cells.latent.mean), decoder_inputs(cells, torch.device("cpu")), {})
    expected = torch.sigmoid(-p.mixing) * p.fore * torch.exp(p.alpha + p.beta**2 / 2)
    np.testing.assert_allclose(found.denoised, expected, rtol=1e-5)


def test_a_protein_that_a_batch_lacks_does_not_vote(tmp_path):
    reference = scgraft.load_reference(write_totalvi_folder(tmp_path / "reference", masked=True))
    cells = draw(60, ("b0", "b1"), seed=0)
    own = cells.obsm["protein_expression"].to_numpy()[(cells.obs["batch"] == "b1").to_numpy(), 2]
    found = scgraft.proteins(reference, scgraft.reference_cells(reference)).neighbours[:, 2]
    assert found.min() >= own.min() > 0


def test_a_reference_of_genes_alone_has_none():
    reference, _ = pair(scgraft.testing.TinyConfig())
    with pytest.raises(UnsupportedModel, match="has no proteins"):
        scgraft.proteins(reference, scgraft.reference_cells(reference))


def test_the_neighbours_estimate_is_the_mean_of_log_counts(tmp_path):
    reference = scgraft.load_reference(write_totalvi_folder(tmp_path / "reference"))
    found = scgraft.proteins(reference, scgraft.reference_cells(reference))
    own = draw(60, ("b0", "b1"), seed=0).obsm["protein_expression"].to_numpy().astype(float)
    latent = reference.latent.mean
    distance = np.linalg.norm(latent[:, None] - latent[None], axis=2)
    logs = np.log1p(own[np.argsort(distance, axis=1, kind="stable")[:, :15]])
    np.testing.assert_allclose(found.neighbours, np.expm1(logs.mean(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(found.spread, logs.std(axis=1), rtol=1e-4, atol=1e-6)

"""Every claim of the README is checked by tests: which, claim by claim, and those of whole mappings themselves."""

import ast
import re
from pathlib import Path

import anndata
import numpy as np
import pytest

import scgraft

ROOT = Path(__file__).parents[1]
# The first words of a claim, and the tests that would fail if it were wrong.
CLAIMS = {
    "Taking the new columns out": {"test_split_undoes_widen_bitwise"},
    "Reference cells keep": {"test_reference_cells_keep_latent_and_expression_bitwise"},
    "A merged graft": {"test_a_merged_graft_embeds_each_query_as_its_own_did"},
    "A saved graft": {
        "test_round_trip_is_bitwise",
        "test_another_base_is_refused",
        "test_a_cut_or_changed_byte_never_gives_another_graft",
    },
    "On a CPU the same cells": {
        "test_same_cells_and_seed_same_bytes_in_whatever_order_the_cells_come",
        "test_a_whole_mapping_does_not_depend_on_the_order_of_the_cells",
    },
    "Under a given graft": {
        "test_cells_are_independent_of_one_another",
        "test_order_of_genes_and_extra_genes_change_nothing",
        "test_half_a_query_keeps_its_latents_but_not_every_mark",
    },
    "A fit changes the new columns": {
        "test_only_the_trainable_slots_change",
        "test_a_fit_that_lowers_the_density_is_not_kept",
        "test_a_far_fit_that_costs_the_labels_is_not_kept",
    },
    "Where the encoder does not see": {"test_without_an_encoder_slot_the_latent_does_not_depend_on_the_graft"},
    "Whatever a repository holds": {
        "test_hostile_files_are_refused_and_run_nothing",
        "test_random_programs_load_or_raise_a_named_error",
    },
    "Models saved by scvi-tools": {"test_latents_equal_scvi_tools"},
    "An exported model": {
        "test_scvi_tools_agrees_on_an_extended_model",
        "test_scvi_tools_gives_the_same_latents",
        "test_scarches_gives_the_same_latents",
    },
    "Prediction sets": {"test_sets_cover_exchangeable_cells"},
    "A type without reference cells": {
        "test_a_type_removed_from_the_reference_is_never_predicted",
        "test_categories_without_cells_and_the_unlabeled_one_are_never_predicted",
    },
    "A novel cell": {"test_cells_are_placed_among_reference_points_and_novel_ones_beside"},
}


def test_every_claim_of_the_readme_has_its_tests():
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is claimed, and tested")[1]
    claims = re.findall(r"^\d+\. (.*)$", text, re.MULTILINE)
    assert len(claims) == len(CLAIMS)
    for claim, beginning in zip(claims, CLAIMS, strict=True):
        assert claim.startswith(beginning)
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    functions = {n.name for s in sources for n in ast.walk(ast.parse(s)) if isinstance(n, ast.FunctionDef)}
    assert set().union(*CLAIMS.values()) <= functions


@pytest.fixture(scope="module")
def demo():
    folder = Path(scgraft.__file__).parent / "_demo"
    reference = scgraft.load_reference(str(folder / "reference"))
    query = anndata.read_h5ad(folder / "query.h5ad")
    return reference, query, scgraft.map_query(reference, query, batch_key="well")


def test_a_whole_mapping_does_not_depend_on_the_order_of_the_cells(demo):
    """From the fit on: the same graft and latents bit for bit, the same labels and marks."""
    reference, query, mapped = demo
    order = np.random.default_rng(0).permutation(query.n_obs)
    mixed = scgraft.map_query(reference, query[order].copy(), batch_key="well")
    assert all(np.array_equal(mixed.graft.rows[name], row) for name, row in mapped.graft.rows.items())
    assert np.array_equal(mixed.latent.mean, mapped.latent.mean[order])
    one, two = (m.labels["bulk_labels"] for m in (mapped, mixed))
    assert np.array_equal(two.label, one.label[order]) and np.array_equal(two.unknown, one.unknown[order])
    assert np.allclose(two.matrix, one.matrix[order], atol=1e-5)
    assert np.array_equal(mixed.novelty.novel, mapped.novelty.novel[order])


def test_half_a_query_keeps_its_latents_but_not_every_mark(demo):
    """Latents are those of the cell; novelty is judged beside the other cells of the query, as the README says."""
    reference, query, mapped = demo
    half = np.arange(query.n_obs) % 2 == 0
    given = {"graft": mapped.graft, "calibration": mapped.calibration, "batch_key": "well"}
    part = scgraft.map_query(reference, query[half].copy(), **given)
    assert np.allclose(part.latent.mean, mapped.latent.mean[half], atol=1e-5)
    assert not np.allclose(part.novelty.score, mapped.novelty.score[half], rtol=0.01)

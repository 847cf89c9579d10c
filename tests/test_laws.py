"""Laws 2, 3 and 5-8 of the architecture, over random configurations of the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.merge import merge_grafts
from scgraft.model.build import build, graft_rows, make_cells, take_cells
from scgraft.model.families import family_of
from scgraft.model.slots import split, widen
from scgraft.testing import configs
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.query import Query
from tiny import pair, reference_of

QUICK = FitConfig(max_steps=3, batch_size=16, device="cpu", force=True)  # the default objective
OBJECTIVES = st.sampled_from(("match", "atlas", "elbo"))
CPU = torch.device("cpu")


def slots_of(reference):
    return family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def only_known(query: Query, reference) -> Query:
    """The same cells, all in the first level that the reference knows."""
    return replace(query, codes=np.zeros_like(query.codes), levels=reference.schema.levels)


@settings(max_examples=25)
@given(configs(), OBJECTIVES)
def test_reference_cells_keep_latent_and_expression_bitwise(config, objective):
    reference, query = pair(config)
    graft = fit(reference, query, replace(QUICK, objective=objective))
    cells = only_known(query, reference)
    before, after = embed(reference, cells, device="cpu"), embed(reference, cells, graft, device="cpu")
    assert np.array_equal(before.mean, after.mean) and np.array_equal(before.variance, after.variance)
    model = build(reference, CPU)
    inputs = make_cells(model, cells, cells.codes.astype(np.int64), CPU)
    z = torch.tensor(after.mean)
    library = torch.log(torch.tensor(np.asarray(query.counts.sum(axis=1), np.float32).reshape(-1, 1)))
    one, two = (model.decode(z, library, inputs, rows).rate for rows in ({}, graft_rows(graft, CPU)))
    assert torch.equal(one, two)


@settings(max_examples=25)
@given(configs(), OBJECTIVES)
def test_only_the_trainable_slots_change(config, objective):
    reference, query = pair(config)
    copy = {k: v.copy() for k, v in reference.weights.items()}
    start = fit(reference, query, replace(QUICK, epochs=0))
    fitted = fit(reference, query, replace(QUICK, objective=objective))
    assert same(dict(reference.weights), copy)
    changed = {name for name in start.rows if not np.array_equal(start.rows[name], fitted.rows[name])}
    trainable = {s.name for s in slots_of(reference) if s.trainable}
    assert changed <= trainable
    base, rows = split(
        widen(reference.weights, slots_of(reference), fitted.rows),
        slots_of(reference),
        {name: len(names) for name, names in fitted.levels.items()},
    )
    assert same(base, copy) and same(rows, dict(fitted.rows))
    assert fitted.record.reference_unchanged[0] == fitted.record.reference_unchanged[1]


def test_every_trainable_slot_does_change():
    config = TinyConfig(encode_covariates=True, n_layers=2, dispersion="gene-batch")
    reference, query = pair(config)
    start, fitted = fit(reference, query, replace(QUICK, epochs=0)), fit(reference, query, replace(QUICK, max_steps=40))
    for slot in slots_of(reference):
        assert slot.trainable == (not np.array_equal(start.rows[slot.name], fitted.rows[slot.name])), slot.name


@settings(max_examples=15)
@given(configs(), OBJECTIVES, st.randoms(use_true_random=False))
def test_same_cells_and_seed_same_bytes_in_whatever_order_the_cells_come(config, objective, random):
    reference, query = pair(config)
    settings = replace(QUICK, objective=objective, fit_cells=random.choice((None, 5)))
    order = np.array(random.sample(range(len(query.cells)), len(query.cells)))
    one, two = (fit(reference, q, settings) for q in (query, take_cells(query, order)))
    assert same(one.rows, two.rows)
    assert one.record.loss == two.record.loss and one.record.gain == two.record.gain


@settings(max_examples=15)
@given(configs())
def test_without_an_encoder_slot_the_latent_does_not_depend_on_the_graft(config):
    reference, query = pair(config)
    graft = fit(reference, query, replace(QUICK, force=False))
    if any(s.role == "encoder" for s in slots_of(reference)):
        assert graft.record.trained
        return
    assert not graft.record.trained and "cannot move the latent" in graft.record.reason
    other = replace(graft, rows={name: row + 1 for name, row in graft.rows.items()})
    assert np.array_equal(embed(reference, query, graft).mean, embed(reference, query, other).mean)


@settings(max_examples=15)
@given(configs())
def test_cells_are_independent_of_one_another(config):
    """Permuting cells permutes latents, and mapping them in parts changes nothing (to float32 rounding)."""
    reference, query = pair(config)
    graft = fit(reference, query, replace(QUICK, epochs=0))
    whole = embed(reference, query, graft)
    order = np.random.default_rng(0).permutation(len(query.cells))
    assert np.allclose(embed(reference, take_cells(query, order), graft).mean, whole.mean[order], atol=1e-5)
    for cut in (1, 7):
        pieces = [embed(reference, take_cells(query, slice(a, b)), graft).mean for a, b in ((0, cut), (cut, None))]
        assert np.allclose(np.concatenate(pieces), whole.mean, atol=1e-5)


@settings(max_examples=15)
@given(configs(), OBJECTIVES)
def test_a_merged_graft_embeds_each_query_as_its_own_did(config, objective):
    reference, first = pair(config, batches=("lab a",))
    _, second = pair(config, batches=("lab b", "lab c"), seed=2)
    if set(first.levels) - {"batch"} and first.alignment.new_levels.keys() - {"batch"}:
        return
    grafts = [fit(reference, q, replace(QUICK, objective=objective)) for q in (first, second)]
    merged = merge_grafts(grafts, reference=reference)
    assert merged.batches == ("lab a", "lab b", "lab c")
    for query, graft in zip((first, second), grafts, strict=True):
        assert np.array_equal(embed(reference, query, graft).mean, embed(reference, query, merged).mean)


@pytest.mark.parametrize("n", [1, 2, 129, 257])
def test_any_number_of_cells(n):
    reference, query = pair(TinyConfig(encode_covariates=True), n_cells=n, batches=("new",))
    graft = fit(reference, query, QUICK)
    latent = embed(reference, query, graft)
    assert latent.mean.shape == (len(query.cells), reference.hyper.n_latent)
    assert np.isfinite(latent.mean).all() and (latent.variance > 0).all()


def test_one_batch_reference_keeps_its_latent():
    config = TinyConfig(batches=("only",), encode_covariates=True)
    reference = reference_of(config)
    assert all(s.size == 0 for s in slots_of(reference) if "fc_layers" in s.key)

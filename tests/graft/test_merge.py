"""Laws of merging: each part keeps its embedding, order and grouping do not matter, names never collide silently."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft import errors
from scgraft.cli.main import main
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.merge import level_axis, merge_grafts, rename_levels
from scgraft.graft.store import load_graft, save_graft
from scgraft.model.families import family_of
from scgraft.query.align import align
from scgraft.testing import configs, tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import pair, reference_of

QUICK = FitConfig(epochs=0, start="random", device="cpu", force=True)


def slots_of(reference):
    return family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)


def labs(config, sizes=(1, 2, 1)):
    """Queries of several labs, each with its own new batches and, where there are any, new levels of covariates."""
    reference = reference_of(config)
    queries = []
    for i, n in enumerate(sizes):
        covariates = {key: (levels[0], f"{key} of lab {i}") for key, levels in config.covariates.items()}
        batches = tuple(f"lab {i} batch {j}" for j in range(n))
        adata = tiny_query(config, n_cells=12 + i, batches=batches, covariates=covariates, seed=i + 1)
        queries.append(align(reference, adata, batch_key="batch", drop_empty=True))
    return reference, queries, [fit(reference, q, replace(QUICK, seed=i)) for i, q in enumerate(queries)]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def equal(a, b):
    quiet = [replace(g.record, seconds=0.0) for g in (a, b)]
    return a.base == b.base and dict(a.levels) == dict(b.levels) and same(a.rows, b.rows) and quiet[0] == quiet[1]


@settings(max_examples=12)
@given(configs(), st.permutations(range(3)))
def test_a_merged_graft_embeds_every_query_bit_for_bit(config, order):
    reference, queries, grafts = labs(config)
    merged = merge_grafts([grafts[i] for i in order], reference=reference)
    for query, graft in zip(queries, grafts, strict=True):
        own, joined = embed(reference, query, graft, device="cpu"), embed(reference, query, merged, device="cpu")
        assert np.array_equal(own.mean, joined.mean) and np.array_equal(own.variance, joined.variance)


@settings(max_examples=8)
@given(configs())
def test_merging_is_associative_and_order_is_the_order_of_the_columns(config):
    _, _, (a, b, c) = labs(config)
    whole = merge_grafts([a, b, c])
    assert equal(merge_grafts([merge_grafts([a, b]), c]), whole)
    assert equal(merge_grafts([a, merge_grafts([b, c])]), whole)
    assert equal(merge_grafts([a]), a)
    turned = merge_grafts([c, a, b])
    for name, rows in whole.rows.items():
        covariate, axis = name.rsplit("[", 1)[1][:-1], level_axis(name)
        order = [turned.levels[covariate].index(level) for level in whole.levels[covariate]]
        assert np.array_equal(np.take(turned.rows[name], order, axis), rows)


@settings(max_examples=25)
@given(configs())
def test_the_axis_of_a_slot_follows_from_its_name(config):
    assert all(level_axis(slot.name) == slot.axis for slot in slots_of(reference_of(config)))


@settings(max_examples=5)
@given(config=configs())
def test_a_merged_graft_saves_and_loads(config, tmp_path_factory):
    _, _, grafts = labs(config)
    merged = merge_grafts(grafts)
    loaded = load_graft(save_graft(merged, tmp_path_factory.mktemp("graft") / "merged"))
    assert equal(loaded, merged)


CONFIG = TinyConfig(encode_covariates=True, covariates={"donor": ("d0", "d1")})


@pytest.mark.parametrize("positions", itertools.permutations(range(3)))
def test_a_clash_of_batches_names_the_way_out(positions):
    reference, query = pair(CONFIG, batches=("s1", "s2"))
    graft = fit(reference, query, QUICK)
    grafts = [replace(graft, record=replace(graft.record, moved={"s1": 0.5, "s2": 0.1}))] * 3
    with pytest.raises(errors.BatchClash, match="Graft 1 .* add batch 's1', 's2'.*rename={1: {'s1'"):
        merge_grafts([grafts[i] for i in positions])
    names = {i: {s: f"{s} of lab {i}" for s in ("s1", "s2")} for i in (1, 2)}
    merged = merge_grafts(grafts, rename=names)
    assert merged.batches == ("s1", "s2", "s1 of lab 1", "s2 of lab 1", "s1 of lab 2", "s2 of lab 2")
    assert set(merged.record.moved) == set(merged.batches)


def test_a_renamed_graft_embeds_cells_with_the_new_name():
    reference, query = pair(CONFIG, batches=("s1",))
    graft = fit(reference, query, QUICK)
    other = rename_levels(graft, {"s1": "mine"})
    renamed = replace(query, levels={**query.levels, "batch": (*reference.schema.batches, "mine")})
    assert np.array_equal(embed(reference, query, graft).mean, embed(reference, renamed, other).mean)
    with pytest.raises(errors.UnknownBatch):
        embed(reference, query, other)


def test_a_clash_of_another_covariate_names_its_way_out():
    reference = reference_of(CONFIG)
    queries = [
        align(reference, tiny_query(CONFIG, batches=(b,), covariates={"donor": ("d0", "d9")}), batch_key="batch")
        for b in "ab"
    ]
    first, second = (fit(reference, q, QUICK) for q in queries)
    with pytest.raises(errors.BatchClash, match=r"donor 'd9'.*rename_levels\(graft, .*covariate='covariate:donor'"):
        merge_grafts([first, second])
    merged = merge_grafts([first, rename_levels(second, {"d9": "d9 b"}, covariate="covariate:donor")])
    assert merged.levels["covariate:donor"] == ("d9", "d9 b")


def test_what_cannot_be_merged():
    reference, query = pair(CONFIG, batches=("s1",))
    graft = fit(reference, query, QUICK)
    with pytest.raises(errors.GraftError, match="nothing to merge"):
        merge_grafts([])
    with pytest.raises(errors.GraftError, match="rename has graft 3"):
        merge_grafts([graft], rename={3: {}})
    with pytest.raises(errors.GraftError, match="no new batch 's9' to rename; it has 's1'"):
        merge_grafts([graft], rename={0: {"s9": "x"}})
    alien = replace(graft, base=replace(graft.base, sha256="0" * 64), levels={"batch": ("s2",)})
    with pytest.raises(errors.BaseMismatch, match="do not belong to one reference"):
        merge_grafts([graft, alien])
    with pytest.raises(errors.BatchClash, match="two levels of batch the name 'x'"):
        rename_levels(replace(graft, levels={"batch": ("a", "b")}), {"a": "x", "b": "x"})
    cut = replace(graft, levels={"batch": ("s2", "s3")})
    with pytest.raises(errors.CorruptGraft, match="names 2 new levels of batch but has 1"):
        merge_grafts([graft, cut])


def test_a_name_of_the_reference_is_never_shadowed():
    reference, query = pair(CONFIG, batches=("s1",))
    shadow = rename_levels(fit(reference, query, QUICK), {"s1": "b0"})
    with pytest.raises(errors.BatchClash, match="adds batch 'b0', which the reference has itself"):
        embed(reference, query, shadow)
    with pytest.raises(errors.BatchClash, match="has itself"):
        merge_grafts([shadow], reference=reference)


def test_command_merge(tmp_path):
    folder = write_hub_folder(tmp_path / "reference", CONFIG)
    reference, query = pair(CONFIG, batches=("s1",))
    graft = fit(reference, query, QUICK)
    a, b = save_graft(graft, tmp_path / "a"), save_graft(graft, tmp_path / "b")

    def run(*args):
        return CliRunner().invoke(main, ["merge", *map(str, args)])

    clash = run(a, b, "--out", tmp_path / "m")
    assert clash.exit_code == 6 and "BatchClash" in clash.output and not (tmp_path / "m").exists()
    done = run(a, b, "--rename", "2:s1=s1 of b", "--out", tmp_path / "m", "--reference", folder)
    assert done.exit_code == 0, done.output
    assert load_graft(tmp_path / "m", reference=reference).batches == ("s1", "s1 of b")
    assert run(a, "--out", tmp_path / "m").exit_code == 7
    assert run(a, "--out", tmp_path / "m", "--force").exit_code == 0
    assert run(a, "--rename", "nonsense", "--out", tmp_path / "n").exit_code == 2
    assert run(a, "--rename", "2:s1=x", "--out", tmp_path / "n").exit_code == 2

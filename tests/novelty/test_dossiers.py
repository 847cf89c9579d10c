"""Which novel cells are a group: more of them in a cluster than false alarms explain."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scgraft.novelty.dossiers import _dossier, _Groups, _is_group, effective_number
from scgraft.novelty.place import Placed
from scgraft.novelty.rule import NoveltyRule
from scgraft.novelty.states import states_of
from scgraft.numerics.neighbors import nearest


def group(n_cells: int, n_novel: int, *, others: int = 0, k: int = 1, strength: float = 1.2, seed: int = 0):
    """A cluster 1 with novel cells, and a cluster 0 of other novel cells that must not count; neighbours are of their cluster."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat([1, 0], [n_cells, others])
    score = np.concatenate([np.where(np.arange(n_cells) < n_novel, strength, 0.5), np.full(others, strength)])
    cells = np.arange(len(cluster))
    drawn = [rng.choice(cells[cluster == c], min(k, (cluster == c).sum()), replace=False) for c in cluster]
    neighbours = cells[:, None] if k == 1 else np.stack(drawn)
    return SimpleNamespace(graph=SimpleNamespace(cluster=cluster, neighbours=neighbours), score=score, null=NULL)


# Held-out cells: a twentieth above the limit, a hundredth above one and a half of it, one in a thousand above twice.
NULL = np.repeat([0.5, 1.2, 1.7, 2.5], [950, 40, 9, 1])


@pytest.mark.parametrize(
    ("n_cells", "n_novel", "expected"),
    [
        (100, 5, False),  # what a rate of 5 % gives
        (100, 13, False),
        (100, 20, True),
        (4, 4, False),  # fewer than five cells
        (5, 5, True),
        (1000, 60, False),
        (1000, 90, True),
    ],
)
def test_a_group_is_more_than_false_alarms_explain(n_cells, n_novel, expected):
    assert _is_group(group(n_cells, n_novel), 1) == expected
    assert _is_group(group(n_cells, n_novel, others=50), 1) == expected


def test_cells_that_share_neighbours_count_once():
    """All of a cluster's cells have the same fifteen neighbours, and so one score: that is one cell, and no group."""
    assert effective_number(np.tile(np.arange(15), (40, 1))) == pytest.approx(1)
    assert effective_number(np.arange(600).reshape(40, 15)) == pytest.approx(40)
    assert not _is_group(group(15, 15, k=15), 1) and _is_group(group(15, 15), 1)


def test_a_small_group_is_one_if_it_is_beyond_what_held_out_cells_have():
    """Twenty cells that share their neighbours: nothing just above the limit, a group at three times of it."""
    near, far = (group(20, 20, k=12, strength=strength) for strength in (1.2, 3.0))
    assert 1.5 < effective_number(near.graph.neighbours) < 5
    assert not _is_group(near, 1) and _is_group(far, 1)


@given(st.integers(0, 10_000))
def test_the_effective_number_is_between_one_and_all(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 60)), int(rng.integers(1, 8))
    neighbours = np.stack([rng.choice(max(n, k), k, replace=False) for _ in range(n)])
    assert 1 - 1e-5 <= effective_number(neighbours) <= n + 1e-3
    order = rng.permutation(n)
    assert effective_number(neighbours[order]) == pytest.approx(effective_number(neighbours), rel=1e-5)


def test_averages_over_shared_neighbours_are_no_groups():
    """Noise, averaged over neighbours in a space of its own: clusters of known cells are groups as seldom as declared."""
    rng, groups_found = np.random.default_rng(0), 0
    for _ in range(40):
        points, noise = rng.standard_normal((400, 3)), rng.standard_normal((400, 60))
        neighbours = nearest(points.astype(np.float32), points.astype(np.float32), k=15).indices
        score = (noise[neighbours].mean(axis=1) ** 2).mean(axis=1)
        null = np.sort(score[rng.permutation(400)[:300]])
        cluster = np.argmax(points @ rng.standard_normal((3, 8)), axis=1)
        limit = np.quantile(null, 0.95)
        made = SimpleNamespace(
            graph=SimpleNamespace(cluster=cluster, neighbours=neighbours), score=score / limit, null=null / limit
        )
        groups_found += sum(_is_group(made, c) for c in range(8))
    assert groups_found <= 2


def groups(labels=None, farther=None):
    """Seven cells of cluster 1, five of them novel, and four known cells of cluster 0; five genes, the last one not measured."""
    cluster = np.repeat([1, 0], [7, 4])
    novel = np.arange(11) < 5
    residual = np.full((11, 5), 0.5, np.float32)
    residual[:5, 0] = 3.0  # all of the novel cells have more of gene 0
    residual[0, 1], residual[1:5, 1] = 20.0, -0.1  # one of five has gene 1: fewer than a quarter, so it is no marker
    residual[:5, 2] = -2.0  # and all have less of gene 2
    residual[:5, 4] = 9.0
    points = np.array([[0.0], [1.0]] * 10, np.float32)
    return _Groups(
        reference=SimpleNamespace(
            schema=SimpleNamespace(genes=np.array(list("abcde"))), latent=SimpleNamespace(mean=points)
        ),
        query=SimpleNamespace(
            levels={"batch": ("old", "new 1", "new 2")},
            codes=np.repeat([1, 2], [3, 8])[:, None],
            cells=np.array([f"cell {i}" for i in range(11)]),
        ),
        latent=SimpleNamespace(mean=np.zeros((11, 1), np.float32)),
        graph=SimpleNamespace(cluster=cluster, anchors=np.arange(11)),
        residual=residual,
        present=np.array([True, True, True, True, False]),
        score=np.array([2.0, 5.0, 3.0, 4.0, 1.5, *[0.5] * 6]),
        novel=novel,
        labels=labels,
        distance=np.where(novel, farther, 1.0) if farther else np.zeros(0),
        null=NULL,
    )


def test_a_dossier_says_what_its_cells_share():
    found = _dossier(groups(), 1)
    assert (found.cluster, found.n_cells, found.n_cluster) == (1, 5, 7)
    assert found.batches == {"new 1": 3, "new 2": 2}
    assert found.cells == ("cell 1", "cell 3", "cell 2", "cell 0", "cell 4")  # the most novel first
    # Mean of the novel cells less that of the known ones, which is 0.5; gene e is not measured.
    assert found.genes == (("a", 2.5),)
    assert found.lacking == (("c", -2.5),)
    assert found.nearest == {}
    assert found.sentence.startswith(
        "5 of the 7 cells of cluster 1 are not explained by the reference. They have more a"
    )


def test_a_dossier_names_the_nearest_types_with_their_share():
    labels = np.array(["near", "far"] * 10)
    found = _dossier(groups(labels), 1)
    # The fifteen nearest of twenty points: the ten at distance 0, and five of the others.
    assert found.nearest == {"near": 0.667, "far": 0.333}
    assert found.sentence.endswith("Nearest in the latent: near (67%), far (33%).")


def test_a_dossier_lists_the_clearest_genes_and_names_five():
    found = groups()
    residual = np.zeros((11, 40), np.float32)
    residual[:5] = np.arange(40) - 20  # gene 39 has most more, gene 0 most less
    many = replace(
        found,
        reference=SimpleNamespace(schema=SimpleNamespace(genes=np.array([f"g{i}" for i in range(40)])), latent=None),
        residual=residual,
        present=np.ones(40, bool),
    )
    made = _dossier(many, 1)
    assert made.genes == tuple((f"g{i}", float(i - 20)) for i in range(39, 27, -1))
    assert made.lacking == tuple((f"g{i}", float(i - 20)) for i in range(12))
    assert made.sentence.endswith("They have more g39, g38, g37, g36, g35 than it expects.")


@pytest.mark.parametrize(
    ("farther", "said"), [(1.02, "a known type in another state, or"), (1.4, "a type that it lacks")]
)
def test_a_dossier_says_whether_its_cells_lie_apart(farther, said):
    assert f"they lie {farther:.2f} times as far" in _dossier(groups(farther=farther), 1).sentence
    assert said in _dossier(groups(farther=farther), 1).sentence


@pytest.mark.parametrize(("in_place", "scale", "novel", "listed"), [
    (True, 2.0, False, True), (False, 2.0, False, False), (True, 1.2, False, False), (True, 2.0, True, False),
])  # fmt: skip
def test_a_type_is_in_another_state_if_it_is_in_its_place_shifted_and_not_novel(in_place, scale, novel, listed):
    found = groups()
    found = replace(found, novel=np.full(11, novel))
    kind = Placed(0, np.arange(7), np.arange(3), 1.0 if in_place else 1.3, 1.1, scale)
    states = states_of(found, [kind], ["B cells"], 1.0, None)
    assert [state.label for state in states] == ["B cells"] * listed


def test_a_gene_of_two_cells_in_five_is_a_marker_and_of_one_in_five_is_none():
    residual = groups().residual.copy()
    residual[:5, 3] = [8.0, 8.0, -0.1, -0.1, -0.1]
    assert {"d"} == {name for name, _ in _dossier(replace(groups(), residual=residual), 1).genes} - {"a"}


def test_ten_cells_are_named_the_most_novel_first():
    n = 14
    score = np.concatenate([np.linspace(1.1, 2.4, n), np.full(4, 0.5)])
    many = replace(
        groups(),
        residual=np.repeat(groups().residual[[0, 10]], [n, 4], axis=0),
        graph=SimpleNamespace(cluster=np.repeat([1, 0], [n, 4]), anchors=np.arange(n + 4)),
        query=SimpleNamespace(
            levels={"batch": ("old", "new")},
            codes=np.ones((n + 4, 1), int),
            cells=np.array([f"c{i}" for i in range(n + 4)]),
        ),
        latent=SimpleNamespace(mean=np.zeros((n + 4, 1), np.float32)),
        score=score,
        novel=score > 1,
    )
    assert _dossier(many, 1).cells == tuple(f"c{i}" for i in range(13, 3, -1))


def test_mixtures_are_told_by_profiles_and_by_nothing_without_them():
    rule = NoveltyRule(np.zeros((1, 2), np.float32), {}, np.ones(1), np.ones(1), 1.0, 1.0, 1.0)
    counts = csr_matrix(np.ones((3, 2), np.float32))
    assert rule.mixture(counts, np.zeros(3, int)).tolist() == [0, 0, 0]
    profiles = SimpleNamespace(strength=lambda counts, batch: np.full(counts.shape[0], 2.0))
    assert replace(rule, profiles=profiles).mixture(counts, np.zeros(3, int)).tolist() == [2, 2, 2]

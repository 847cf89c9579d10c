"""Which novel cells are a group: more of them in a cluster than false alarms explain."""

from dataclasses import replace
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.novelty.dossiers import _dossier, _Groups, _is_group


def group(n_cells: int, n_novel: int, *, others: int = 0):
    """A cluster 1 with novel cells, and a cluster 0 of other novel cells that must not count."""
    cluster = np.repeat([1, 0], [n_cells, others])
    novel = np.concatenate([np.arange(n_cells) < n_novel, np.ones(others, bool)])
    return SimpleNamespace(graph=SimpleNamespace(cluster=cluster), novel=novel)


@pytest.mark.parametrize(
    ("n_cells", "n_novel", "expected"),
    [
        (100, 5, False),  # what a rate of 5 % gives
        (100, 12, False),  # p = 0.0043
        (100, 13, False),  # p = 0.0015
        (100, 14, True),  # p = 0.00046
        (4, 4, False),  # fewer than five cells
        (5, 5, True),
        (1000, 74, True),  # p = 0.0006
        (1000, 72, False),  # p = 0.0014
    ],
)
def test_a_group_is_more_than_false_alarms_explain(n_cells, n_novel, expected):
    assert _is_group(group(n_cells, n_novel), 1, 0.05) == expected
    assert _is_group(group(n_cells, n_novel, others=50), 1, 0.05) == expected


@given(st.integers(1, 60), st.data(), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_test_is_the_binomial_tail(n_cells, data, rate):
    n_novel = data.draw(st.integers(0, n_cells))
    tail = sum(comb(n_cells, k) * rate**k * (1 - rate) ** (n_cells - k) for k in range(n_novel, n_cells + 1))
    assert _is_group(group(n_cells, n_novel), 1, rate) == (n_novel >= 5 and tail < 1e-3)


def groups(labels=None):
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

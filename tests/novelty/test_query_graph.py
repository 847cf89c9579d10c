"""The query's own graph is that of its cells, whatever their order: also where it is learnt from some of them."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scgraft.novelty import query_graph as module
from scgraft.novelty.query_graph import query_graph


@pytest.mark.parametrize(
    ("axes", "anchors"), [(3000, 10_000), (60, 10_000), (60, 90)], ids=["all", "axes of some", "some"]
)
def test_the_order_of_the_cells_changes_nothing(monkeypatch, axes, anchors):
    monkeypatch.setattr(module, "AXES_CELLS", axes)
    monkeypatch.setattr(module, "ANCHORS", anchors)
    rng = np.random.default_rng(0)
    profile = rng.gamma(0.5, 2, (4, 50))
    counts = csr_matrix(rng.poisson(profile[rng.integers(0, 4, 200)]).astype(np.float32))
    order = rng.permutation(200)
    one, two = query_graph(counts), query_graph(counts[order])
    assert np.array_equal(two.cluster, one.cluster[order]) and len(np.unique(one.cluster)) > 1
    assert len(one.anchors) == min(anchors, 200) and np.array_equal(order[two.anchors], one.anchors)
    assert np.array_equal(two.neighbours, one.neighbours[order])
    assert np.array_equal(one.neighbours[one.anchors, 0], np.arange(len(one.anchors)))  # its own first neighbour
    assert np.array_equal(one.space.place(counts)[0], one.neighbours)

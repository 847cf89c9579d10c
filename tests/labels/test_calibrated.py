"""Calibrated labels against a slow version: weights, temperature, sets, and the mark of a cell that fits no class."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from scgraft.labels.transfer import calibrated_labels, transfer_labels
from scgraft.labels.votes import Votes
from scgraft.values.reference import BaseId, Latent, Reference, Schema


def labels_of(points, names, queries):
    def latent(x):
        return Latent(np.asarray(x, np.float32), np.ones(np.shape(x), np.float32), np.arange(len(x)).astype(str))

    schema = Schema(np.array(["g"]), "b", ("0",), "type", (), None)
    obs = pd.DataFrame({"type": names}, index=[f"r{i}" for i in range(len(points))])
    reference = Reference(BaseId("org/name", "local", "0" * 64, "SCVI"), schema, None, {}, latent(points), obs)
    return transfer_labels(reference, latent(queries))["type"]


@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.5]), st.integers(1, 4))
def test_calibrated_labels_are_the_weighted_product_at_a_temperature_with_conformal_sets(seed, temperature, n_batches):
    rng = np.random.default_rng(seed)
    labels = labels_of(
        rng.standard_normal((30, 2)), np.array(["a", "b", "c"])[np.arange(30) % 3], rng.standard_normal((6, 2))
    )
    latent, genes = rng.dirichlet(np.ones(3), (2, 6)).astype(np.float32)
    weights = rng.gamma(5, 0.2, 3).astype(np.float32)
    # Thirty calibration cells of class 0 and 1, and five of class 2, which is compared with those of all classes.
    kind = np.repeat([0, 1, 2], [30, 30, 5])
    scores = rng.random(65).astype(np.float32)
    calibration = SimpleNamespace(
        class_weights=weights, temperature=temperature, scores=scores, score_class=kind,
        folds=tuple((f"b{i}",) for i in range(n_batches)),
    )  # fmt: skip
    made = calibrated_labels(labels, calibration, Votes(latent, genes, None))
    widened = (n_batches + 1) / n_batches
    for i in range(6):
        both = [(latent[i, c] + 0.1) * genes[i, c] for c in range(3)]
        both = [b / sum(both) * w for b, w in zip(both, weights, strict=True)]
        share = np.array([b ** (1 / temperature) for b in both])
        share /= share.sum()
        assert np.allclose(made.matrix[i], share, atol=1e-4)
        order = np.argsort(-share)
        assert made.label[i] == "abc"[order[0]] and made.runner_up[i] == "abc"[order[1]]
        assert np.isclose(made.probability[i], share[order[0]], atol=1e-4)
        for c in range(3):
            own = np.maximum(scores if c == 2 else scores[kind == c], 0.01)
            gap = np.abs(own - max(1 - share[c], 0.01)).min()
            if gap > 1e-3:  # else rounding may decide which of two is larger
                worse = (own >= max(1 - share[c], 0.01)).sum()
                assert np.isclose(made.pvalues[i, c], min(widened * (1 + worse) / (len(own) + 1), 1), rtol=1e-5)
    assert np.array_equal(made.unknown, (made.pvalues <= 0.1).all(axis=1))
    assert np.array_equal(made.distance, labels.distance) and np.array_equal(made.votes["genes"], genes)

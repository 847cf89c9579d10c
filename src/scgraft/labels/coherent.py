"""Labels of several levels of one annotation that agree: no cell is a T cell on one level and a naive B cell on the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scgraft.errors import NoLabels
from scgraft.values.hierarchy import parents_of
from scgraft.values.labels import Labels
from scgraft.values.reference import Reference

NEVER = 1e-9  # share of a class without a vote, so that a coarse class whose children have none can be divided


def coherent(reference: Reference, labels: Mapping[str, Labels]) -> dict[str, Labels]:
    """Labels in which each finer level lies under the coarser one, where the model was trained with several levels.

    With the coarse class c of a finer class f::

        p(f) = p(c) * share of f among the children of c

    so the probabilities of the children add up to that of their parent, which stays as it is. The finer label is the most
    probable child of the coarser label. A cell whose coarser label is not believed has no finer one to believe either.

    Parameters
    ----------
    reference
        Its schema names the levels, its cells tell which class lies under which.
    labels
        By column. Columns that are no levels of the model's annotation, or no hierarchy, stay as they are.
    """
    out = dict(labels)
    levels = sorted((k for k in reference.schema.label_levels if k in out), key=lambda k: len(out[k].classes))
    for coarse, fine in zip(levels, levels[1:], strict=False):
        parent = _parents(reference, out[coarse], out[fine])
        if parent is not None:
            out[fine] = _under(out[coarse], out[fine], parent)
    return out


def _parents(reference: Reference, coarse: Labels, fine: Labels) -> np.ndarray | None:
    """Position of each finer class's parent among the coarser classes, (F,); None where the columns are no hierarchy."""
    assert reference.obs is not None
    own, unlabeled = reference.obs[[coarse.key, fine.key]].astype(str), reference.schema.unlabeled
    own = own[(own != str(unlabeled)).all(axis=1)]
    try:
        found = parents_of(own, [coarse.key, fine.key])
    except NoLabels:
        return None
    names = [found.get(name, name) for name in fine.classes]
    if not set(names) <= set(coarse.classes):
        return None
    return np.array([coarse.classes.index(name) for name in names], np.int64)


def _under(coarse: Labels, fine: Labels, parent: np.ndarray) -> Labels:
    share = fine.matrix.astype(np.float64) + NEVER
    siblings = np.zeros_like(coarse.matrix, np.float64)
    np.add.at(siblings.T, parent, share.T)
    matrix = coarse.matrix[:, parent] * share / siblings[:, parent]
    # Where the coarse probability is 0 its children all have 0, so the label is sought among the shares.
    above = np.array([coarse.classes.index(name) for name in coarse.label], np.int64)
    inside = np.where(parent[None, :] == above[:, None], share, -1.0)
    best = inside.argmax(axis=1)
    rows = np.arange(len(best))
    rest = matrix.copy()
    rest[rows, best] = -1.0
    classes = np.array(fine.classes, dtype=str)
    second = classes[rest.argmax(axis=1)] if len(classes) > 1 else fine.runner_up
    return replace(
        fine,
        label=classes[best],
        probability=matrix[rows, best].astype(np.float32),
        runner_up=second,
        unknown=fine.unknown | coarse.unknown,
        matrix=matrix.astype(np.float32),
    )

"""The vote of a model's own classifier, such as SCANVI's."""

from __future__ import annotations

import numpy as np

from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
from scgraft.labels.votes import classify
from scgraft.reference.cells import label_key
from scgraft.values.names import column_text
from scgraft.values.reference import Reference


def cast(ballot: Ballot) -> Vote | None:
    """The vote; None where the model has no classifier, or for another column than that of the registry."""
    share = classify(ballot.reference, ballot.latent, device=ballot.device)
    return (
        None if share is None or ballot.key != ballot.reference.schema.labels_key else vote_of(ballot.reference, share)
    )


def vote_of(reference: Reference, share: np.ndarray) -> Vote:
    """The vote that a classifier's probabilities (n, C) are: classes that no cell of the reference has are never predicted."""
    schema, share = reference.schema, share.astype(np.float32)
    if reference.obs is not None and label_key(schema, reference.obs) == str(schema.labels_key):
        has_cells = np.isin(schema.labels, np.unique(column_text(reference.obs[str(schema.labels_key)])))
        share = share * has_cells
        total = share.sum(axis=1, keepdims=True)
        share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    return Vote(schema.labels, share)


METHOD = LabelMethod("classifier", "the reference model's own classifier", cast, held_out=False)

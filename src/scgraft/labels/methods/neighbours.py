"""The vote of the nearest reference cells in the latent, with scArches' weights."""

from __future__ import annotations

from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
from scgraft.numerics.votes import neighbour_vote


def cast(ballot: Ballot) -> Vote | None:
    """The vote; None where the reference holds no cells."""
    if ballot.near is None or ballot.reference.obs is None:
        return None
    return Vote(ballot.classes, neighbour_vote(ballot.codes, len(ballot.classes), ballot.near.found))


METHOD = LabelMethod("neighbours", "weighted nearest neighbours in the latent (scArches' weights, k=30)", cast)

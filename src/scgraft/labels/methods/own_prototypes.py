"""The vote of a model's own prototypes, such as scPoli's."""

from __future__ import annotations

from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
from scgraft.labels.prototypes import prototype_votes


def cast(ballot: Ballot) -> Vote | None:
    """The vote; None where the model has no prototypes for the column."""
    found = prototype_votes(ballot.reference, ballot.latent).get(ballot.key)
    return None if found is None else Vote(*found)


METHOD = LabelMethod(
    "prototypes",
    "softmax of the negative distances to the reference model's own prototypes, at the posterior mean",
    cast,
    held_out=False,
)

"""The vote of the gene classifier as it is before it learns from a query: trained on cells of the reference alone."""

from __future__ import annotations

from scgraft.labels.classifier import predict, train_classifier
from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
from scgraft.novelty.score import present_genes


def cast(ballot: Ballot) -> Vote | None:
    """The vote; None without counts of the query's cells, or without cells of the reference."""
    reference, query = ballot.reference, ballot.query
    if query is None or reference.latent is None or reference.obs is None:
        return None
    made = train_classifier(reference, ballot.codes, ballot.classes, genes=present_genes(reference, query))
    return Vote(ballot.classes, predict(made, query.counts))


METHOD = LabelMethod("genes", "logistic regression on genes, trained on cells of the reference (seeded)", cast)

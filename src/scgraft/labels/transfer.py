"""Labels from the reference's latent by weighted nearest neighbours, and from a model's own classifier.

The weights are scArches' (Lotfollahi et al. 2022, doi:10.1038/s41587-021-01001-7): with the distances d of a cell's k
neighbours and their standard deviation s, ``w = exp(-d s^2 / 4)``, normalised. They are close to a plain majority vote.
k is 30 here; the Human Lung Cell Atlas used 50 (Sikkema et al. 2023, doi:10.1038/s41591-023-02327-2), which is too many
for references of a few hundred cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scgraft.errors import BadOption, NoLabels
from scgraft.labels.methods import label_method_of, neighbours, own_classifier, own_prototypes
from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
from scgraft.labels.prototypes import prototype_votes
from scgraft.labels.votes import Votes
from scgraft.numerics.conformal import conformal_pvalues, sharpen
from scgraft.numerics.index import Near
from scgraft.numerics.votes import K
from scgraft.reference.cells import label_key
from scgraft.values.calibration import Calibration, held_out_batches
from scgraft.values.labels import Labels
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

LEAST_PROBABILITY = 0.5  # of a label without calibration: most of the vote; chosen by eye, not measured
LARGEST_DISTANCE = 2.0  # twice the spacing of the reference; chosen by eye, not measured
BOTH = (
    "product of the latent's vote and of a classifier on genes that also learnt from the query's sure cells, calibrated on "
    "held-out reference batches"
)
ALPHA = 0.1  # the error rate that conformal prediction is usually shown at; a convention
CLASSIFIER, PROTOTYPES = own_classifier.METHOD.sentence, own_prototypes.METHOD.sentence


def transfer_labels(
    reference: Reference,
    latent: Latent,
    *,
    labels: Sequence[str] | None = None,
    k: int = K,
    classifier: np.ndarray | None = None,
    near: Near | None = None,
    method: str | None = None,
    query: Query | None = None,
    device: str = "auto",
) -> dict[str, Labels]:
    """Transfer labels of the reference to a query's cells.

    Parameters
    ----------
    reference
        With a latent and obs, unless there is a classifier.
    latent
        Of the query, from :func:`scgraft.embed`.
    labels
        Columns of the reference's obs; None takes the label column of the registry.
    k
        Neighbours that vote; fewer where the reference has fewer cells.
    classifier
        Class probabilities (n, C) over ``reference.schema.labels`` from the model's own classifier.
    near
        Nearest reference cells of the query's cells, where they have been looked up already: ``reference.latent.index.near``.
    method
        Name of one label method that votes alone: ``"neighbours"``, ``"genes"``, ``"classifier"``, ``"prototypes"``, or one that was
        registered (:func:`scgraft.register_label_method`). None takes the neighbours, and the model's own classifier or
        prototypes beside them.
    query
        The same cells with raw counts, from :func:`scgraft.align`, for a method that asks for them.
    device
        For a method that uses the model: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    dict
        Labels by column; those of the model's own classifier or prototypes are under ``"<key>_classifier"`` beside the
        neighbours', or under the key itself where the repository holds no cells, or none with a label.

    Raises
    ------
    NoLabels
        No such column, or neither cells nor a classifier; or `method` cannot vote on a column of this reference.
    BadOption
        There is no such method, or its vote is none.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> latent = scgraft.embed(reference, query, graft)
    >>> labels = scgraft.transfer_labels(reference, latent)["cell_type"]
    >>> labels.classes, labels.label.shape, labels.matrix.shape
    (('alpha', 'beta', 'delta'), (40,), (40, 3))
    """
    if method is not None:
        return _by_method(reference, latent, labels, method, near=near, query=query, device=device, k=k)
    schema, prototypes = reference.schema, prototype_votes(reference, latent)
    if reference.latent is None or reference.obs is None:
        wanted = schema.label_keys if labels is None else labels
        if wanted and set(wanted) <= prototypes.keys():
            return {key: _from_prototypes(key, *prototypes[key], None) for key in wanted}
        if classifier is None or labels not in (None, [schema.labels_key]):
            raise NoLabels(
                f"{reference.base.repo} holds no cells with a latent ({reference.latent_source}), and a "
                f"{reference.base.family} model has no classifier for {labels or 'labels'}: there is nothing to transfer "
                "labels from. Take a revision with adata.h5ad, or map with labels=None (--no-labels)."
            )
        return {str(schema.labels_key): _from_classifier(reference, classifier, None)}
    if labels is None:
        labels = list(schema.label_keys)
    # Where no cell has a label, the model's own classifier knows them nonetheless.
    alone = classifier is not None and label_key(schema, reference.obs) is None
    own = {schema.labels_key} if alone else set()
    missing = [key for key in labels if key not in reference.obs and key not in own]
    if missing or not labels:
        raise NoLabels(
            f"The reference has no label column {', '.join(map(repr, missing)) or 'in its registry'}; its cells have "
            f"{', '.join(map(str, reference.obs.columns))}. Choose one of these."
        )
    near = reference.latent.index.near(latent.mean, k=k) if near is None else near
    distance, result = near.distance, {}
    for key in labels:
        if classifier is not None and key in own:
            result[key] = _from_classifier(reference, classifier, distance)
            continue
        vote = neighbours.cast(Ballot(reference, key, latent, near))
        assert vote is not None
        result[key] = _labels(key, neighbours.METHOD.sentence, vote, distance)
        if classifier is not None and key == schema.labels_key:
            result[f"{key}_classifier"] = _from_classifier(reference, classifier, distance)
        elif key in prototypes:
            result[f"{key}_classifier"] = _from_prototypes(key, *prototypes[key], distance)
    return result


def calibrated_labels(
    labels: Labels, calibration: Calibration, votes: Votes, chosen: np.ndarray | None = None
) -> Labels:
    """Labels of both votes, or of a label method's, with calibrated probabilities and conformal p-values.

    Parameters
    ----------
    labels
        From :func:`transfer_labels`: the latent's vote.
    calibration
        Of the same reference and column.
    votes
        Of the latent and of the genes, on these cells.
    chosen
        Votes of the calibration's label method, from :func:`chosen_votes`.
    """
    made_of = votes.both if chosen is None else chosen
    matrix = sharpen(made_of * calibration.class_weights, calibration.temperature)
    batches = held_out_batches(calibration.folds)
    pvalues = conformal_pvalues(matrix, calibration.scores, calibration.score_class, batches=batches)
    method, before = BOTH, {"latent": votes.latent, "genes": votes.genes}
    if chosen is not None and calibration.method is not None:
        method = f"{label_method_of(calibration.method).sentence}; calibrated on held-out reference batches"
        before["method"] = chosen
    made = _labels(labels.key, method, Vote(labels.classes, matrix), labels.distance)
    unknown = pvalues.max(axis=1) <= ALPHA
    return replace(made, unknown=unknown, pvalues=pvalues, votes=before, classifier=votes.classifier)


def unless_novel(labels: dict[str, Labels], novel: np.ndarray) -> dict[str, Labels]:
    """Labels of which those that only the model's own classifier gives are not believed for novel cells, (n,) bool."""
    return {
        key: replace(made, unknown=made.unknown | novel) if made.method == CLASSIFIER and key == made.key else made
        for key, made in labels.items()
    }


def _by_method(
    reference: Reference,
    latent: Latent,
    labels: Sequence[str] | None,
    name: str,
    *,
    near: Near | None,
    query: Query | None,
    device: str,
    k: int,
) -> dict[str, Labels]:
    """Labels of one method alone, by column."""
    method, result = label_method_of(name), {}
    if near is None and reference.latent is not None:
        near = reference.latent.index.near(latent.mean, k=k)
    for key in reference.schema.label_keys if labels is None else labels:
        vote = _vote_of(method, Ballot(reference, key, latent, near, query, device))
        result[key] = _labels(key, method.sentence, vote, None if near is None else near.distance)
    if not result:
        raise NoLabels(
            "The reference's registry has no label column. Name one of its obs with labels=[...] (--labels)."
        )
    return result


def _vote_of(method: LabelMethod, ballot: Ballot) -> Vote:
    vote, n = method.vote(ballot), len(ballot.latent.mean)
    if vote is None:
        raise NoLabels(
            f"The label method {method.name!r} cannot vote on {ballot.key!r} of {ballot.reference.base.repo}: the reference has no cells, "
            "classifier or prototypes for this column, or the method needs the query's counts, which were not given. Choose another "
            "method or column."
        )
    if len(vote.share) != n:
        raise BadOption(
            f"The label method {method.name!r} voted on {len(vote.share)} cells; there are {n}. Correct the method."
        )
    return vote


def shares_by(name: str, ballot: Ballot, classes: tuple[str, ...]) -> np.ndarray:
    """Shares (n, C), float32, that a label method gives to some classes; what it gives to others is left out.

    Raises
    ------
    NoLabels, BadOption
        As :func:`transfer_labels` with this method.
    """
    vote = _vote_of(label_method_of(name), ballot)
    out = np.zeros((len(vote.share), len(classes)), np.float32)
    for c, own in enumerate(vote.classes):
        if own in classes:
            out[:, classes.index(own)] = vote.share[:, c]
    total = out.sum(axis=1, keepdims=True)
    return np.divide(out, total, out=out, where=total > 0)


def chosen_votes(calibration: Calibration, ballot: Ballot) -> np.ndarray | None:
    """Votes (n, C) of the calibration's label method on some cells; None where the latent's and the genes' votes decide."""
    return None if calibration.method is None else shares_by(calibration.method, ballot, calibration.classes)


def _from_classifier(reference: Reference, matrix: np.ndarray, distance: np.ndarray | None) -> Labels:
    """Labels of a classifier; classes that no cell of the reference has are never predicted."""
    return _labels(str(reference.schema.labels_key), CLASSIFIER, own_classifier.vote_of(reference, matrix), distance)


def _from_prototypes(key: str, classes: tuple[str, ...], matrix: np.ndarray, distance: np.ndarray | None) -> Labels:
    return _labels(key, PROTOTYPES, Vote(classes, matrix), distance)


def _labels(key: str, method: str, vote: Vote, distance: np.ndarray | None) -> Labels:
    """Labels of a vote; `distance` (n,) is that to the reference, None where it holds no cells."""
    matrix, classes = vote.share.astype(np.float32, copy=False), np.array(vote.classes, dtype=str)
    distance = np.full(len(matrix), np.nan, np.float32) if distance is None else distance
    order = np.argsort(-matrix, axis=1, kind="stable")
    best = order[:, 0]
    probability = np.clip(matrix[np.arange(len(matrix)), best], 0, 1).astype(np.float32)
    second = classes[order[:, 1]] if len(classes) > 1 else np.full(len(matrix), "", dtype=str)
    return Labels(
        key=key,
        method=method,
        label=classes[best],
        probability=probability,
        runner_up=second,
        distance=distance,
        unknown=is_unknown(probability, distance),
        classes=vote.classes,
        matrix=matrix,
    )


def is_unknown(probability: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Where a label should not be believed: no majority, or twice as far from the reference as its cells are apart.

    These limits are not calibrated; they mark the clear cases where there is no calibration.
    """
    return (probability < LEAST_PROBABILITY) | (np.nan_to_num(distance, nan=0.0) > LARGEST_DISTANCE)

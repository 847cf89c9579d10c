"""From a mapping to results that can be trusted: calibrated labels and novelty, with one calibration for a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scgraft.adaptation import adapted, best_explained
from scgraft.calibrate import calibrate
from scgraft.calibration_store import cache_folder, load_calibration, save_calibration
from scgraft.classifier import predict, train_classifier
from scgraft.confidence import Calibration, GeneClassifier, Novelty, Quality
from scgraft.errors import GraftError, ScgraftError
from scgraft.novelty import find_novelty, present_genes
from scgraft.query_graph import query_graph
from scgraft.transfer import calibrated_labels, reference_classes
from scgraft.values import Graft, Labels, Latent, Query, Reference
from scgraft.verdict import measure_quality


@dataclass(frozen=True)
class Trusted:
    """Labels with probabilities that mean something, novelty, the calibrations that they come from, and a verdict."""

    labels: dict[str, Labels]
    novelty: Novelty
    calibration: dict[str, Calibration]
    verdict: Quality


def calibration_of(reference: Reference, keys: Sequence[str]) -> dict[str, Calibration]:
    """The calibration of a reference: from the user's cache, or made now and kept there where that is possible."""
    folder = cache_folder(reference, keys)
    try:
        found = load_calibration(folder, reference=reference)
        if set(found) == set(keys or [""]):
            return found
    except ScgraftError:
        pass  # none yet, or damaged: it is made anew
    made = calibrate(reference, keys)
    try:
        save_calibration(made, folder)
    except (OSError, ScgraftError):
        pass  # a home that cannot be written to: it is made again next time
    return made


def trust(
    reference: Reference,
    query: Query,
    graft: Graft,
    latent: Latent,
    labels: Mapping[str, Labels],
    *,
    calibration: Mapping[str, Calibration] | None = None,
) -> Trusted:
    """Calibrate a mapping's labels and find its novel cells.

    Parameters
    ----------
    reference, query, graft, latent, labels
        The mapping; `labels` from :func:`scgraft.transfer_labels`.
    calibration
        By label column; None takes the one in the cache, or makes it.

    Raises
    ------
    GraftError
        The calibration lacks a label column, or its classes are not those of the reference.
    """
    keys = [key for key, result in labels.items() if key == result.key and not key.endswith(":classifier")]
    keys = [key for key in keys if reference.obs is not None and key in reference.obs]
    if calibration is None:
        calibration = calibration_of(reference, keys)
    for key in keys:
        if key not in calibration or calibration[key].classes != labels[key].classes:
            raise GraftError(
                f"The calibration has no column {key!r} with the classes of this reference (it has "
                f"{', '.join(calibration) or 'none'}). Leave it out, and one is made."
            )
    first = calibration[keys[0]] if keys else next(iter(calibration.values()))
    graph = query_graph(query.counts)
    novelty = find_novelty(
        reference,
        query,
        graft,
        latent,
        first.novelty,
        null_distance=first.distance,
        null_misfit=first.quality.get("misfit", ()),
        key=first.key or None,
        graph=graph,
    )
    out, explained = dict(labels), best_explained(novelty.score, query.codes[:, 0])
    for key in keys:
        classifier = classifier_for(reference, calibration[key], query)
        vote = predict(adapted(classifier, query.counts, labels[key].matrix, explained), query.counts)
        made = calibrated_labels(labels[key], calibration[key], vote)
        out[key] = replace(made, unknown=made.unknown | novelty.novel)
    verdict = measure_quality(reference, query, graft, latent, out, novelty, graph, first)
    return Trusted(out, novelty, dict(calibration), verdict)


def classifier_for(reference: Reference, calibration: Calibration, query: Query) -> GeneClassifier:
    """The calibration's gene classifier; trained anew on the genes that the query has, where it lacks some."""
    present = present_genes(reference, query)
    made = calibration.classifier
    if np.array_equal(present, made.genes):
        return made
    _, codes = reference_classes(reference, calibration.key)
    return train_classifier(reference, codes, calibration.classes, genes=present)

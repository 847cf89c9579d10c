"""From a mapping to results that can be trusted: calibrated labels and novelty, with one calibration for a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from scgraft.calibration.calibrate import calibration_of
from scgraft.errors import GraftError
from scgraft.judgement.verdict import measure_quality
from scgraft.labels.adaptation import adapted, best_explained
from scgraft.labels.classifier import classifier_for, predict
from scgraft.labels.transfer import calibrated_labels
from scgraft.novelty.find import find_novelty
from scgraft.novelty.query_graph import query_graph
from scgraft.numerics.index import Near
from scgraft.values.calibration import Calibration
from scgraft.values.graft import Graft
from scgraft.values.labels import Labels
from scgraft.values.novelty import Novelty
from scgraft.values.quality import Verdict
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference


@dataclass(frozen=True)
class Trusted:
    """Labels with probabilities that mean something, novelty, the calibrations that they come from, and a verdict."""

    labels: dict[str, Labels]
    novelty: Novelty
    calibration: dict[str, Calibration]
    verdict: Verdict


def trust(
    reference: Reference,
    query: Query,
    graft: Graft,
    latent: Latent,
    labels: Mapping[str, Labels],
    *,
    calibration: Mapping[str, Calibration] | None = None,
    near: Near | None = None,
) -> Trusted:
    """Calibrate a mapping's labels and find its novel cells.

    Parameters
    ----------
    reference, query, graft, latent, labels
        The mapping; `labels` from :func:`scgraft.transfer_labels`.
    calibration
        By label column; None takes the one in the cache, or makes it.
    near
        Nearest reference cells of the query's cells, where they have been looked up already.

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
        near=near,
    )
    out, explained = dict(labels), best_explained(novelty.score, query.codes[:, 0])
    for key in keys:
        classifier = classifier_for(reference, calibration[key], query)
        vote = predict(adapted(classifier, query.counts, labels[key].matrix, explained), query.counts)
        made = calibrated_labels(labels[key], calibration[key], vote)
        out[key] = replace(made, unknown=made.unknown | novelty.novel)
    verdict = measure_quality(reference, query, graft, latent, out, novelty, graph, first)
    return Trusted(out, novelty, dict(calibration), verdict)

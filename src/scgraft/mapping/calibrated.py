"""A mapping judged: labels with calibrated probabilities, novel cells, the verdict, and what judges further cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scgraft.calibration.calibrate import calibration_of
from scgraft.calibration.condition import condition_of
from scgraft.errors import GraftError
from scgraft.judgement.verdict import Start, measure_quality
from scgraft.labels.classifier import classifier_for, predict
from scgraft.labels.coherent import coherent
from scgraft.labels.methods.method import Ballot
from scgraft.labels.transfer import CLASSIFIER, calibrated_labels, chosen_votes, unless_novel
from scgraft.labels.votes import learnt, votes_of
from scgraft.mapping.freeze import (
    Judgement,
    unfitted_near,
)
from scgraft.mapping.summary import summary
from scgraft.novelty.find import judge_sample
from scgraft.novelty.place import HeldOut
from scgraft.novelty.query_graph import query_graph
from scgraft.numerics.order import order_by_name
from scgraft.progress import Advance, step
from scgraft.values.calibration import Calibration
from scgraft.values.mapping import MappedQuery
from scgraft.values.query import Query
from scgraft.values.reference import Reference

JUDGED = 2000  # cells whose label before and after the fit is compared: a share of them is known to a percent


def calibrated(
    reference: Reference,
    query: Query,
    mapped: MappedQuery,
    calibration: Mapping[str, Calibration] | None = None,
    *,
    method: str | None = None,
    device: str = "auto",
) -> tuple[MappedQuery, Judgement]:
    """A mapping whose labels have probabilities that mean something, with novel cells and a verdict; and how it judged.

    Parameters
    ----------
    reference, query, mapped
        The mapping, with labels from :func:`scgraft.transfer_labels`.
    calibration
        By label column; None takes the one in the cache, or makes it.
    method
        Name of the label method whose votes the labels are; None for the latent's and the genes' vote.
    device
        As for :func:`scgraft.embed`.

    Raises
    ------
    GraftError
        The calibration lacks a label column, or its classes are not those of the reference, or it is of another label method.
    """
    labels = mapped.labels
    keys = [key for key, result in labels.items() if key == result.key]
    # What the model's own classifier says where no cell has a label is not compared with held-out cells.
    keys = [key for key in keys if labels[key].method != CLASSIFIER]
    if calibration is None:
        calibration = calibration_of(reference, keys, condition_of(reference, query), method=method, device=device)
    for key in keys:
        if key not in calibration or calibration[key].classes != labels[key].classes:
            raise GraftError(
                f"The calibration has no column {key!r} with the classes of this reference (it has "
                f"{', '.join(calibration) or 'none'}). Leave it out, and one is made."
            )
        if calibration[key].method != method:
            was, asked = (repr(name) if name else "scgraft's own votes" for name in (calibration[key].method, method))
            raise GraftError(
                f"The calibration of {key!r} is of the label method {was}, and the mapping asks for {asked}. Leave it out, and one is "
                "made, or name the method that it is of: method= (--label-method)."
            )
    with step("judging novelty and labels", 3, "part") as advance:
        return _judged(reference, query, mapped, keys, calibration, device, advance)


def _judged(
    reference: Reference,
    query: Query,
    mapped: MappedQuery,
    keys: Sequence[str],
    calibration: Mapping[str, Calibration],
    device: str,
    advance: Advance,
) -> tuple[MappedQuery, Judgement]:
    labels, graft, latent = mapped.labels, mapped.graft, mapped.latent
    first = calibration[keys[0]] if keys else next(iter(calibration.values()))
    graph = query_graph(query.counts)
    advance(1)
    start = _start(reference, query, mapped, first if keys else None, device)
    novelty, rule = judge_sample(
        reference,
        query,
        graft,
        latent,
        HeldOut(first.novelty, first.distance, first.novelty_class, first.novelty_fold, first.evidence, first.mixture),
        key=first.key or None,
        graph=graph,
        near=mapped.near,
        distance=start.near.distance,
        device=device,
    )
    advance(1)
    out, classifiers = dict(labels), {}
    for key in keys:
        made_before = classifier_for(reference, calibration[key], query)
        classifiers[key] = learnt(made_before, query, labels[key].matrix, novelty.score, novelty.novel)
        votes = votes_of(classifiers[key], query, labels[key].matrix)
        chosen = chosen_votes(calibration[key], Ballot(reference, key, latent, mapped.near, query, device))
        made = calibrated_labels(labels[key], calibration[key], votes, chosen)
        out[key] = replace(made, unknown=made.unknown | novelty.novel | novelty.mixed)
    out = unless_novel(out, novelty.novel | novelty.mixed)
    advance(1)
    assert graph.space is not None
    out = coherent(reference, out)
    judged = replace(
        mapped,
        labels=out,
        novelty=novelty,
        calibration=dict(calibration),
        verdict=measure_quality(reference, query, graft, latent, out, novelty, graph, first, start),
        summary=summary(query.alignment, graft, out, mapped.label_method),
    )
    return judged, Judgement(dict(calibration), classifiers, graph.space, rule, novelty.false_alarms)


def _start(
    reference: Reference, query: Query, mapped: MappedQuery, calibration: Calibration | None, device: str
) -> Start:
    """The cells before the fit, and labels of some by the genes before anything was learnt from them."""
    near = unfitted_near(reference, query, mapped, device=device)
    some = np.sort(order_by_name(query.cells, 0)[:JUDGED])
    none = np.zeros(len(some), np.int64)
    genes = none if calibration is None else predict(calibration.classifier, query.counts[some]).argmax(axis=1)
    return Start(*near, some, genes)

"""Calibration on held-out reference batches: each is mapped, through the same pipeline, onto the reference without it.

The cells are what the repository holds: stored counts, or cells generated from the stored posterior. The weights of the
model have seen the held-out batches; the neighbours, the new columns and the classifier have not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scgraft.calibration.condition import Condition, own_condition
from scgraft.calibration.hold_out import Fold, choose_folds, held_mixture, hold_out
from scgraft.calibration.store import cache_folder, load_calibration, save_calibration
from scgraft.errors import NoLabels, ScgraftError
from scgraft.expression.generate import counted_cells
from scgraft.files.cache import is_own, keep_below, mark_used
from scgraft.judgement.measures import VOTE_NUMBERS, mapping_numbers, vote_numbers
from scgraft.labels.classifier import Drawn, draw_cells, train_classifier, without, without_classes
from scgraft.labels.methods import METHODS, require_held_out
from scgraft.labels.methods.method import Ballot
from scgraft.labels.transfer import shares_by
from scgraft.labels.votes import cast_votes
from scgraft.numerics.conformal import (
    coverage_across,
    expected_error,
    fit_temperature,
    proven_class_weights,
    reliability,
    sharpen,
)
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import K, neighbour_vote
from scgraft.progress import Advance, showing, step
from scgraft.reference.cells import label_key, reference_classes
from scgraft.values.calibration import Calibration, GeneClassifier, held_out_batches
from scgraft.values.graft import FitConfig
from scgraft.values.reference import Reference

HELD_OUT = 3  # of the parts that are counted: mapping a held-out fold takes about three times as long as its votes


def calibrate(
    reference: Reference,
    labels: Sequence[str] | None = None,
    *,
    method: str | None = None,
    genes: np.ndarray | None = None,
    share: float = 1.0,
    blocks: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> dict[str, Calibration]:
    """Calibrate label transfer and novelty on held-out batches of the reference.

    Each batch of the reference is held out and mapped onto the rest as a query would be. How often its labels are right
    gives the calibration. It is made once for a reference and takes seconds.

    Parameters
    ----------
    reference
        With a latent.
    labels
        Label columns; None takes that of the registry. Without any, only novelty is calibrated, under the key "".
    method
        Name of a label method (:func:`scgraft.register_label_method`), which then votes on the held-out cells as it will on a query.
        None takes the product of the latent's and the genes' vote.
    genes
        Genes that the query has, (G,) bool: the held-out cells lose the others. None takes all of them.
    share
        Share of their counts that held-out cells keep (binomial thinning), in (0, 1]: the query's depth over the reference's.
    blocks
        Features of other inputs that the query has, (F,) bool by name: ``{"proteins": ...}``. None takes all of them.
    seed
        Seed of everything random: which cells are used, the counts that are generated, and the fits.
    device
        Where torch computes: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
    progress
        Show a progress bar; None shows it on a terminal and in a notebook.

    Returns
    -------
    dict
        A :class:`Calibration` for each key.

    Raises
    ------
    NoLabels
        The reference has no cells, or no such column; or `method` cannot vote on it.
    BadOption
        There is no such method, or it cannot be calibrated: it was trained with the labels of the cells that would be held out.

    Notes
    -----
    At most five folds are held out, at most 500 cells of each are used, and they are mapped onto a sample of at most about 20,000 of
    the others, so the cost does not grow with the reference. If the reference has a single batch, random
    fifths of its cells are held out instead; these say nothing about differences between batches, and the guarantee says so.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> calibration = scgraft.calibrate(reference)["cell_type"]
    >>> calibration.folds, calibration.classifier.coefficient.shape
    ((('b0',), ('b1',)), (3, 30))
    """
    if reference.latent is None or reference.obs is None:
        raise NoLabels(
            f"{reference.base.repo} holds no cells ({reference.latent_source}): there is nothing to calibrate on. Take a revision "
            "with adata.h5ad, or map with calibration=None (--no-calibration)."
        )
    if method is not None:
        require_held_out(method)
    if labels is None:
        own = label_key(reference.schema, reference.obs)
        labels = list(reference.schema.label_levels) or ([] if own is None else [own])
    missing = [key for key in labels if key not in reference.obs]
    if missing:
        raise NoLabels(
            f"The reference has no label column {', '.join(map(repr, missing))}; its cells have "
            f"{', '.join(map(str, reference.obs.columns))}. Choose one of these."
        )
    plan = choose_folds(reference, seed)
    config = FitConfig(labels=next(iter(labels), None), seed=seed, device=device)
    condition = Condition(share, own_condition(reference).genes if genes is None else genes, blocks or {})
    keys, folds = labels or [""], []
    total = HELD_OUT * len(plan) + len(keys) * (len(plan) + 1)
    with showing(progress), step("calibrating on held-out batches of the reference", total, "part") as advance:
        for batches, members in plan:
            folds.append(hold_out(reference, batches, members, seed=seed, config=config, condition=condition))
            advance(HELD_OUT)
        masks = [members for _, members in plan]
        return {key: _calibration(reference, key, folds, masks, condition, config, method, advance) for key in keys}


def _calibration(
    reference: Reference,
    key: str,
    folds: list[Fold],
    masks: list[np.ndarray],
    condition: Condition,
    config: FitConfig,
    method: str | None,
    advance: Advance,
) -> Calibration:
    seed, device = config.seed, config.device
    source = counted_cells(reference, np.zeros(1, np.int64)).alignment.counts_from
    classes: tuple[str, ...] = ()
    classifier = without_classes(condition.genes, source)
    seen = [np.ones(len(fold.index), bool) for fold in folds]
    classes_of = [np.full(len(fold.index), -1) for fold in folds]
    mixture: list[np.ndarray] = [np.zeros(len(fold.index)) for fold in folds]
    votes: list[tuple[np.ndarray, np.ndarray]] = []
    measured = [mapping_numbers(fold.rest.latent, fold.latent, fold.graph, fold.misfit) for fold in folds]
    if key:
        names, codes = reference_classes(reference, key)
        classes = tuple(names.tolist())
        drawn = draw_cells(reference, codes, seed=seed)  # once, for all classifiers
        classifier = train_classifier(reference, codes, classes, genes=condition.genes, seed=seed, drawn=drawn)
        advance(1)
        # A cell whose class no other batch has is novel by right, and no null.
        classes_of = [codes[fold.index] for fold in folds]
        # There is no fold where the reference is too small to hold any batch out.
        mixed = [held_mixture(fold, codes[fold.kept], device) for fold in folds]
        mixture = [gain for gain, _ in mixed]
        measured = [numbers | {"ambient": share} for numbers, (_, share) in zip(measured, mixed, strict=True)]
        seen = [np.isin(own, codes[fold.kept]) for fold, own in zip(folds, classes_of, strict=True)]
        parts = []
        for fold, members in zip(folds, masks, strict=True):
            parts.append(_held_out_votes(fold, members, drawn, key, codes, classifier, config, method))
            advance(1)
        votes = [(matrix, true) for matrix, true, _ in parts]
        measured = [numbers | part[2] for numbers, part in zip(measured, parts, strict=True)]
    votes.append((np.zeros((0, len(classes)), np.float32), np.zeros(0, np.int64)))  # there may be none
    blended, true = (np.concatenate(part) for part in zip(*votes, strict=True))
    class_weights = proven_class_weights(votes)
    weighted = sharpen(blended * class_weights, 1.0)
    temperature = fit_temperature(weighted, true)
    matrix = sharpen(weighted, temperature)
    covered = coverage_across([(sharpen(sharpen(m * class_weights, 1.0), temperature), c) for m, c in votes[:-1]])
    if key:
        measured = [numbers | {"covered": share} for numbers, share in zip(measured, covered, strict=True)]
    best, own = matrix.max(axis=1, initial=0.0), matrix[np.arange(len(true)), true]
    right = own >= best
    table = reliability(best, right)
    accuracy = {name: float(right[true == c].mean()) for c, name in enumerate(classes) if (true == c).any()}
    batches = tuple(fold.batches for fold in folds)
    return Calibration(
        base_sha256=reference.base.sha256,
        base_cells=reference.base.cells,
        key=key,
        classes=classes,
        classifier=classifier,
        class_weights=class_weights,
        temperature=temperature,
        scores=(1 - own).astype(np.float32),
        score_class=true.astype(np.int64),
        novelty=_null([fold.novelty[own] for fold, own in zip(folds, seen, strict=True)]),
        distance=_null([fold.distance[own] for fold, own in zip(folds, seen, strict=True)]),
        novelty_class=_codes([c[own] for c, own in zip(classes_of, seen, strict=True)]),
        evidence=_null([fold.evidence[own] for fold, own in zip(folds, seen, strict=True)]),
        mixture=_null([gain[own] for gain, own in zip(mixture, seen, strict=True)]),
        novelty_fold=_codes([np.full(int(own.sum()), i) for i, own in enumerate(seen)]),
        reliability=table,
        expected_error=expected_error(table),
        accuracy=accuracy,
        quality={name: tuple(m[name] for m in measured) for name in (measured[0] if measured else {})},
        folds=batches,
        source=source,
        guarantee=guarantee_of(batches, sum(len(fold.index) for fold in folds), source, covered),
        method=method,
    )


def _null(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def _codes(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def _held_out_votes(
    fold: Fold,
    members: np.ndarray,
    drawn: Drawn | None,
    key: str,
    codes: np.ndarray,
    start: GeneClassifier,
    config: FitConfig,
    method: str | None,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Votes (blended, or a method's) and true classes of held-out cells whose class the rest of the reference has; numbers of all.

    The classifier sees nothing of the cells that are held out, `members` (n,): neither they nor what was drawn from them.
    """
    assert fold.rest.latent is not None
    classes = start.classes
    rest_codes, true = codes[fold.kept], codes[fold.index]
    known = np.isin(true, rest_codes[rest_codes >= 0])
    if not known.any():
        return np.zeros((0, len(classes)), np.float32), np.zeros(0, np.int64), dict.fromkeys(VOTE_NUMBERS, np.nan)
    found = nearest(fold.rest.latent.mean, fold.latent.mean, k=min(K, len(rest_codes)))
    latent_vote = neighbour_vote(rest_codes, len(classes), found)
    left = None if drawn is None else without(drawn, members, fold.rest, rest_codes, seed=config.seed)
    classifier = train_classifier(
        fold.rest, rest_codes, classes, genes=start.genes, trainings=1, seed=config.seed, drawn=left
    )
    votes = cast_votes(classifier, fold.query, latent_vote, fold.novelty)
    numbers = vote_numbers(fold.rest.latent, fold.latent, rest_codes, votes.latent, votes.genes)
    if method is None:
        return votes.both[known], true[known], numbers
    near = fold.rest.latent.index.near(fold.latent.mean)
    cast = shares_by(method, Ballot(fold.rest, key, fold.latent, near, fold.query, config.device), classes)
    return cast[known], true[known], numbers


def guarantee_of(folds: tuple[tuple[str, ...], ...], n_cells: int, source: str, covered: tuple[float, ...] = ()) -> str:
    """What may be claimed of prediction sets and novelty limits, in words for the user.

    `covered` are the shares of the cells of each fold whose class is in sets for 90 % that the other folds set.
    """
    if not folds:
        return "None: the reference has too few cells to hold any out."
    made, n_batches = f"{n_cells} cells of the reference ({source})", held_out_batches(folds)
    if folds == ((),) * len(folds):
        return (
            f"Error rates hold for cells like those of the reference, measured on {made}. The reference has a single batch, "
            "so nothing is known about differences between batches. To allow for them, sets are made at half of the requested "
            "error rate (5% for a requested 10%): a rule of thumb. A query from another laboratory may still exceed it."
        )
    share = n_batches / (n_batches + 1)
    return (
        "Error rates hold on average for a query that differs from the reference as the reference's own batches differ from "
        f"each other, measured on {made} from {n_batches} batches, held out in {len(folds)} folds. {n_batches} batches show "
        f"only roughly how much batches differ. To allow for that, sets are made at {share:.0%} of the requested error rate "
        f"({share / 10:.1%} for a requested 10%): a rule of thumb, no proof for one batch." + _across(covered)
    )


def _across(covered: tuple[float, ...]) -> str:
    finite = [share for share in covered if np.isfinite(share)]
    if not finite:
        return ""
    said = f" Sets for 90% that the other batches set covered {min(finite):.0%} to {max(finite):.0%} of a held-out fold's cells."
    return said


def is_kept(reference: Reference, keys: Sequence[str], condition: Condition) -> bool:
    """Whether the user's cache has a calibration for cells measured like that, so that none need be made."""
    folder = cache_folder(reference, keys, condition)
    return is_own(folder) and any(folder.glob("calibration-*.npz"))


def calibration_of(
    reference: Reference,
    keys: Sequence[str],
    condition: Condition | None = None,
    *,
    method: str | None = None,
    device: str = "auto",
) -> dict[str, Calibration]:
    """The calibration of a reference for cells measured like a query's: from the user's cache, or made now and kept there.

    There is one for each halving of the depth and for each set of genes that queries lack; without a `condition` it is for
    cells like the reference's own. A cache that somebody else can write to is neither read nor written. One for a label `method` of
    another package or a notebook is never kept: tomorrow its name may stand for other code.
    """
    condition = own_condition(reference) if condition is None else condition
    folder = cache_folder(reference, keys, condition, method)
    if not is_own(folder) or not (method is None or method in METHODS.own):
        return _made(reference, keys, condition, method, device)
    try:
        found = load_calibration(folder)
        if set(found) == set(keys or [""]):
            mark_used(folder)
            # The folder is named by all of the cells that matters here, whatever else their file holds by now.
            return {key: replace(value, base_cells=reference.base.cells) for key, value in found.items()}
    except ScgraftError:
        pass  # none yet, or damaged: it is made anew
    made = _made(reference, keys, condition, method, device)
    try:
        save_calibration(made, folder)
        keep_below()
    except (OSError, ScgraftError):
        pass  # a home that cannot be written to: it is made again next time
    return made


def _made(
    reference: Reference, keys: Sequence[str], condition: Condition, method: str | None, device: str
) -> dict[str, Calibration]:
    """A calibration that is made now, for cells measured so."""
    return calibrate(
        reference,
        keys,
        method=method,
        genes=condition.genes,
        share=condition.share,
        blocks=condition.blocks,
        device=device,
    )

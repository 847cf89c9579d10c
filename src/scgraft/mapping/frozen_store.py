"""Frozen value <-> folder: graft/, calibration/, frozen.npz and frozen.json; plain arrays and text, nothing that runs.

It is what the parts of a large mapping are computed from, on this machine or another, and again after an interruption.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.calibration.store import load_calibration, save_calibration
from scgraft.errors import CorruptFile
from scgraft.files import schema
from scgraft.files.atomic import new_folder
from scgraft.files.npz import Array, read_npz
from scgraft.graft.store import load_graft, save_graft
from scgraft.mapping.freeze import Frozen, Judgement
from scgraft.novelty.mixtures import Profiles
from scgraft.novelty.query_graph import QuerySpace
from scgraft.novelty.rule import NoveltyRule
from scgraft.values.calibration import Calibration, GeneClassifier
from scgraft.values.reference import Reference

FROZEN_FORMAT = 3  # raised with every change of the folder that older versions cannot read (docs/stability.md)
ARRAYS, DOCUMENT = "frozen.npz", "frozen.json"
SPACE = ("axes", "shift", "anchors", "centres", "community")
RULE = ("residual", "markers", "farther")
MIXTURE = ("genes", "shares", "limit")
LIMITS = ("usual", "misfit", "limit")
CLASSIFIER = ("coefficient", "intercept", "genes")


def save_frozen(frozen: Frozen, folder: Path) -> Path:
    """Save what a sample taught; the folder appears when it is complete."""
    with new_folder(folder) as new:
        save_graft(frozen.graft, new / "graft")
        document: dict[str, Any] = {
            "format": FROZEN_FORMAT,
            "levels": frozen.levels,
            "labels": frozen.labels,
            "judgement": None,
        }
        if frozen.method is not None:
            document["method"] = frozen.method
        arrays: dict[str, Any] = {}
        if frozen.judgement is not None:
            judgement, rule = frozen.judgement, frozen.judgement.rule
            save_calibration(judgement.calibration, new / "calibration")
            document["judgement"] = {
                "k": judgement.space.k,
                "false_alarms": judgement.false_alarms,
                "centres": list(rule.centres),
                "soup": [] if rule.profiles is None else list(rule.profiles.soup),
                "classifiers": {key: [made.classes, made.source] for key, made in judgement.classifiers.items()},
            }
            arrays |= {name: getattr(judgement.space, name) for name in SPACE}
            arrays |= {f"rule_{name}": getattr(rule, name) for name in RULE}
            none = Profiles(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
            mixture = none if rule.profiles is None else rule.profiles
            arrays |= {"mixture_genes": mixture.genes, "mixture_shares": mixture.shares}
            arrays["mixture_limit"] = np.array([mixture.limit])
            arrays |= {f"soup_{code}": soup for code, soup in mixture.soup.items()}
            arrays["limits"] = np.array([getattr(rule, name) for name in LIMITS])
            arrays |= {f"centre_{code}": centre for code, centre in rule.centres.items()}
            for i, made in enumerate(judgement.classifiers.values()):
                arrays |= {f"{name}_{i}": getattr(made, name) for name in CLASSIFIER}
        np.savez(new / ARRAYS, **arrays)
        (new / DOCUMENT).write_text(json.dumps(document), encoding="utf-8")
    return folder


def load_frozen(folder: Path, reference: Reference) -> Frozen:
    """Load what a sample taught.

    Raises
    ------
    CorruptFile
        A file is missing or damaged.
    GraftError
        It was made for another reference, or its graft is damaged.
    """
    graft = load_graft(folder / "graft", reference=reference)
    try:
        document = schema.parse((folder / DOCUMENT).read_bytes(), _written(), DOCUMENT)
        levels = {name: tuple(names) for name, names in document["levels"].items()}
        frozen = Frozen(graft, levels, tuple(document["labels"]), method=document.get("method"))
        if document["judgement"] is None:
            return frozen
        arrays = read_npz(folder / ARRAYS, _arrays(document["judgement"]))
        calibration = load_calibration(folder / "calibration", reference=reference)
        judgement = _judgement(document["judgement"], arrays, calibration)
        if wrong := _misfits(judgement, len(reference.schema.genes)):
            raise ValueError(f"its {', '.join(wrong)} do not fit together")
        return replace(frozen, judgement=judgement)
    except (OSError, ValueError, CorruptFile) as error:
        raise CorruptFile(f"{folder} is cut or damaged ({error}). Remove it; it is made anew.") from error


def _written() -> schema.Check:
    """What frozen.json holds."""
    judgement = {
        "k": schema.whole,
        "false_alarms": schema.number(0, 1),
        "centres": schema.items(schema.whole),
        "soup": schema.items(schema.whole),
        "classifiers": schema.table(schema.each(schema.distinct, schema.text)),
    }
    return schema.record(
        {
            "format": schema.one_of(FROZEN_FORMAT),  # any other is made anew
            "levels": schema.table(schema.distinct),
            "labels": schema.distinct,
            "judgement": schema.maybe(schema.record(judgement)),
            "method": schema.text,
        },
        optional={"method"},
    )


def _arrays(judgement: dict[str, Any]) -> dict[str, Array]:
    """What frozen.npz holds; a class without cells has an intercept of minus infinity."""
    found = {
        name: Array("f", dimensions) for name, dimensions in {"axes": 2, "shift": 1, "anchors": 2, "centres": 2}.items()
    }
    found |= {"community": Array("iu", 1), "rule_residual": Array("f", 2), "rule_markers": Array("f", 1)}
    found |= {"rule_farther": Array("f", 1), "limits": Array("f", 1, finite=False)}
    found |= {"mixture_genes": Array("iu", 1), "mixture_shares": Array("f", 2)}
    found["mixture_limit"] = Array("f", 1, finite=False)
    found |= {f"centre_{code}": Array("f", 1) for code in judgement["centres"]}
    found |= {f"soup_{code}": Array("f", 1) for code in judgement["soup"]}
    for i in range(len(judgement["classifiers"])):
        found |= {
            f"coefficient_{i}": Array("f", 2),
            f"intercept_{i}": Array("f", 1, finite=False),
            f"genes_{i}": Array("b", 1),
        }
    return found


def _misfits(value: Judgement, n_genes: int) -> list[str]:
    """Parts of what was frozen whose lengths or codes contradict the others."""
    space, rule, made = value.space, value.rule, value.classifiers.values()
    width, n_used = len(space.shift), rule.residual.shape[1]
    fits = {
        "axes": space.axes.shape == (n_genes, width),
        "anchors": space.anchors.shape[1] == width and 0 < space.k <= len(space.anchors),
        "centres": space.centres.shape == (len(space.community), width) and bool((space.community >= 0).all()),
        "residuals": rule.residual.shape[0] == len(rule.markers) == len(rule.farther) == len(space.anchors),
        "mixtures": rule.profiles is None
        or (rule.profiles.shares.shape[1] == len(rule.profiles.genes) and int(rule.profiles.genes.max()) < n_genes)
        and int(rule.profiles.genes.min()) >= 0
        and all(len(one) == len(rule.profiles.genes) and 0 <= one.sum() < 1 for one in rule.profiles.soup.values()),
        "batches": all(len(centre) == n_used for centre in rule.centres.values()),
        "classifiers": all(
            one.coefficient.shape == (len(one.classes), n_genes) and len(one.intercept) == len(one.classes)
            for one in made
        ),
        "classes": all(
            key in value.calibration and one.classes == value.calibration[key].classifier.classes
            for key, one in value.classifiers.items()
        ),
    }
    return [name for name, right in fits.items() if not right]


def _judgement(
    document: dict[str, Any], arrays: dict[str, np.ndarray], calibration: dict[str, Calibration]
) -> Judgement:
    from scipy.sparse import csr_matrix

    classifiers = {}
    for i, (key, (classes, source)) in enumerate(document["classifiers"].items()):
        coefficient, intercept, genes = (arrays[f"{name}_{i}"] for name in CLASSIFIER)
        # It has learnt: nothing is learnt along with cells of the reference any more.
        no_cells = csr_matrix((0, len(genes)), dtype=np.float32)
        classifiers[key] = GeneClassifier(
            tuple(classes), coefficient, intercept, genes, source, no_cells, np.zeros(0, np.int64)
        )
    space = QuerySpace(**{name: arrays[name] for name in SPACE}, k=int(document["k"]))
    centres = {int(code): arrays[f"centre_{code}"] for code in document["centres"]}
    residual, markers, farther = (arrays[f"rule_{name}"] for name in RULE)
    if arrays["limits"].shape != (len(LIMITS),):
        raise ValueError(f"it has {arrays['limits'].size} limits; {len(LIMITS)} were expected")
    genes, shares, most = (arrays[f"mixture_{name}"] for name in MIXTURE)
    soup = {int(code): arrays[f"soup_{code}"] for code in document["soup"]}
    profiles = Profiles(genes, shares, float(most[0]), soup) if len(genes) and len(most) else None
    limits = dict(zip(LIMITS, arrays["limits"].tolist(), strict=True))
    rule = NoveltyRule(residual, centres, markers, farther, **limits, profiles=profiles)
    return Judgement(calibration, classifiers, space, rule, float(document["false_alarms"]))

"""Frozen value <-> folder: graft/, calibration/, frozen.npz and frozen.json; plain arrays and text, nothing that runs.

It is what the parts of a large mapping are computed from, on this machine or another, and again after an interruption.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.calibration.store import load_calibration, save_calibration
from scgraft.errors import CorruptFile
from scgraft.files.atomic import new_folder
from scgraft.graft.store import load_graft, save_graft
from scgraft.mapping.freeze import Frozen, Judgement
from scgraft.novelty.query_graph import QuerySpace
from scgraft.novelty.rule import NoveltyRule
from scgraft.values.calibration import Calibration, GeneClassifier
from scgraft.values.reference import Reference

ARRAYS, DOCUMENT = "frozen.npz", "frozen.json"
SPACE = ("axes", "shift", "anchors", "centres", "community")
RULE = ("residual", "between", "large")
LIMITS = ("misfit", "limit", "held_out_limit", "power")
CLASSIFIER = ("coefficient", "intercept", "genes")


def save_frozen(frozen: Frozen, folder: Path) -> Path:
    """Save what a sample taught; the folder appears when it is complete."""
    with new_folder(folder) as new:
        save_graft(frozen.graft, new / "graft")
        document: dict[str, Any] = {"levels": frozen.levels, "labels": frozen.labels, "judgement": None}
        arrays: dict[str, Any] = {}
        if frozen.judgement is not None:
            judgement, rule = frozen.judgement, frozen.judgement.rule
            save_calibration(judgement.calibration, new / "calibration")
            document["judgement"] = {
                "k": judgement.space.k,
                "false_alarms": judgement.false_alarms,
                "centres": list(rule.centres),
                "classifiers": {key: [made.classes, made.source] for key, made in judgement.classifiers.items()},
            }
            arrays |= {name: getattr(judgement.space, name) for name in SPACE}
            arrays |= {f"rule_{name}": getattr(rule, name) for name in RULE}
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
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        levels = {name: tuple(names) for name, names in document["levels"].items()}
        frozen = Frozen(graft, levels, tuple(document["labels"]))
        if document["judgement"] is None:
            return frozen
        with (folder / ARRAYS).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        calibration = load_calibration(folder / "calibration", reference=reference)
        return replace(frozen, judgement=_judgement(document["judgement"], arrays, calibration))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CorruptFile(f"{folder} is cut or damaged ({error}). Remove it; it is made anew.") from error


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
    residual, between, large = (arrays[f"rule_{name}"] for name in RULE)
    rule = NoveltyRule(residual, centres, between, large, *arrays["limits"].tolist())
    return Judgement(calibration, classifiers, space, rule, float(document["false_alarms"]))

"""Calibrations on disk: one .npz for each label column, in a folder beside a graft or in the user's cache.

The file holds plain arrays and one JSON text; it is read with ``allow_pickle=False``, so it cannot run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scgraft._version import __version__
from scgraft.calibration.condition import Condition
from scgraft.errors import BaseMismatch, CorruptFile, FormatTooNew
from scgraft.files import schema
from scgraft.files.atomic import new_file
from scgraft.files.budget import Budget, stored_bytes
from scgraft.files.cache import cache_root
from scgraft.files.npz import Array, read_npz, read_one
from scgraft.files.structure import check_sparse
from scgraft.values.calibration import Calibration, GeneClassifier
from scgraft.values.names import column_text
from scgraft.values.reference import Reference

FORMAT = 10  # raised with every change of the folder that older versions cannot read (docs/stability.md)
SPARSE = ("data", "indices", "indptr")
ARRAYS = (
    "class_weights",
    "scores",
    "score_class",
    "novelty",
    "distance",
    "novelty_class",
    "novelty_fold",
    "evidence",
    "mixture",
    "reliability",
)
# What each array of the file is.
WRITTEN = {
    "document": Array("U", 0),
    "coefficient": Array("f", 2),
    "intercept": Array("f", 1),
    "genes": Array("b", 1),
    "anchor_codes": Array("iu", 1),
    "anchor_data": Array("fiu", 1),
    "anchor_indices": Array("iu", 1),
    "anchor_indptr": Array("iu", 1),
    "class_weights": Array("f", 1),
    "scores": Array("f", 1),
    "score_class": Array("iu", 1),
    "novelty": Array("f", 1),
    "distance": Array("f", 1),
    "novelty_class": Array("iu", 1),
    "novelty_fold": Array("iu", 1),
    "evidence": Array("f", 1),
    "mixture": Array("f", 1),
    "reliability": Array("f", 2),
}
TEXT = (
    "base_sha256",
    "base_cells",
    "key",
    "classes",
    "temperature",
    "expected_error",
    "accuracy",
    "quality",
    "folds",
    "source",
    "guarantee",
)


def save_calibration(calibration: Mapping[str, Calibration], folder: str | Path) -> Path:
    """Save calibrations into a folder, one file for each label column; files of the same column are replaced.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> saved = scgraft.save_calibration(mapped.calibration, folder.parent / "calibration")
    >>> len(list(saved.glob("*.npz")))
    1
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for value in calibration.values():
        _write(folder / file_name(value.key), value)
    return folder


def file_name(key: str) -> str:
    """Name of the file of a label column: any column name gives a safe file name."""
    return f"calibration-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"


def _write(path: Path, value: Calibration) -> None:
    made = value.classifier
    text: dict[str, Any] = {name: getattr(value, name) for name in TEXT}
    if value.method is not None:  # as other versions know it: without a method, the two votes
        text["method"] = value.method
    document = {"format": FORMAT, **text, "classifier_classes": made.classes, "classifier_source": made.source}
    arrays = {name: getattr(value, name) for name in ARRAYS}
    with new_file(path, force=True) as new:
        np.savez_compressed(
            new,
            document=np.array(json.dumps(document)),
            coefficient=made.coefficient,
            intercept=made.intercept,
            genes=made.genes,
            anchor_codes=made.anchor_codes,
            **{f"anchor_{part}": getattr(made.anchors, part) for part in SPARSE},
            **arrays,
        )


def load_calibration(folder: str | Path, *, reference: Reference | None = None) -> dict[str, Calibration]:
    """Load the calibrations of a folder, by label column.

    Raises
    ------
    CorruptFile
        There is none, or a file is cut or damaged.
    FormatTooNew
        Written by a newer scgraft.
    BaseMismatch
        Made for another reference than the one given.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> saved = scgraft.save_calibration(mapped.calibration, folder.parent / "calibration")
    >>> list(scgraft.load_calibration(saved, reference=reference))
    ['cell_type']
    """
    folder = Path(folder)
    paths = sorted(folder.glob("calibration-*.npz"))
    if not paths:
        raise CorruptFile(
            f"{folder} holds no calibration-*.npz; a calibration is written by `scgraft map` or save_calibration."
        )
    budget = Budget(0, folder.name, packed=sum(map(stored_bytes, paths)))
    found = [_read(path, budget) for path in paths]
    for value in found:
        if reference is not None and value.base_sha256 != reference.base.sha256:
            raise BaseMismatch(
                f"The calibration in {folder} was made for a model with sha256 {value.base_sha256[:12]}, but the reference "
                f"has {reference.base.sha256[:12]}. Leave it out, and one is made for this reference."
            )
        if reference is not None and reference.base.cells and value.base_cells not in ("", reference.base.cells):
            raise BaseMismatch(
                f"The calibration in {folder} was made when the reference's cells (adata.h5ad) had the sha256 "
                f"{value.base_cells[:12]}; they have {reference.base.cells[:12]}: the file was changed. Leave it out, and one is "
                "made for these cells."
            )
    return {value.key: value for value in found}


def _read(path: Path, budget: Budget) -> Calibration:
    from scipy.sparse import csr_matrix

    try:
        document = _document(path)
        file = read_npz(path, WRITTEN, budget=budget)
        classifier = GeneClassifier(
            tuple(document["classifier_classes"]),
            file["coefficient"],
            file["intercept"],
            file["genes"],
            document["classifier_source"],
            csr_matrix(
                tuple(file[f"anchor_{part}"] for part in SPARSE),
                shape=(len(file["anchor_codes"]), len(file["genes"])),
            ),
            file["anchor_codes"],
        )
        check_sparse(classifier.anchors, "anchors")
        made = Calibration(
            base_sha256=document["base_sha256"],
            base_cells=document["base_cells"],
            key=document["key"],
            classes=tuple(document["classes"]),
            classifier=classifier,
            temperature=float(document["temperature"]),
            expected_error=float(document["expected_error"]),
            accuracy=document["accuracy"],
            quality={name: tuple(values) for name, values in document["quality"].items()},
            folds=tuple(tuple(fold) for fold in document["folds"]),
            source=document["source"],
            guarantee=document["guarantee"],
            method=document.get("method"),
            **{name: file[name] for name in ARRAYS},
        )
        if wrong := _misfits(made):
            raise ValueError(f"its {', '.join(wrong)} do not fit together")
        return made
    except FormatTooNew:
        raise
    except (CorruptFile, ValueError) as error:
        raise CorruptFile(f"{path} is cut or damaged ({error}). Remove it; a calibration is made anew.") from error


def _document(path: Path) -> dict[str, Any]:
    """The text of a calibration; its format is looked at before anything else."""
    content = str(read_one(path, "document", WRITTEN["document"]))
    document: dict[str, Any] = schema.parse(content, schema.record({"format": schema.whole}, more=True), "its document")
    if document["format"] > FORMAT:
        raise FormatTooNew(f"{path} was written by a newer scgraft. Install it, or leave the file out.")
    if document["format"] < FORMAT:
        raise CorruptFile("made by an older scgraft with other votes")
    schema.record(
        {
            "format": schema.whole,
            "base_sha256": schema.text,
            "base_cells": schema.text,
            "key": schema.text,
            "classes": schema.distinct,
            "temperature": schema.number(0, 1e6),
            "expected_error": schema.number(0, 1),
            "accuracy": schema.table(schema.number(0, 1)),
            "quality": schema.table(schema.items(schema.number())),
            "folds": schema.items(schema.items(schema.text)),
            "source": schema.text,
            "guarantee": schema.text,
            "classifier_classes": schema.distinct,
            "classifier_source": schema.text,
            "method": schema.text,
        },
        optional={"method"},
    )(document, "its document")
    return document


def _misfits(value: Calibration) -> list[str]:
    """Parts of a calibration whose lengths or codes contradict the others."""
    made, n_classes = value.classifier, len(value.classes)
    n_votes, n_genes = len(made.classes), len(made.genes)
    fits = {
        "coefficient": made.coefficient.shape == (n_votes, n_genes),
        "intercept": made.intercept.shape == (n_votes,),
        "anchor codes": _codes_within(made.anchor_codes, n_votes),
        "class weights": value.class_weights.shape == (n_classes,) and bool((value.class_weights >= 0).all()),
        "scores": len(value.scores) == len(value.score_class),
        "score classes": _codes_within(value.score_class, n_classes),
        "distance": len(value.distance) == len(value.novelty),
        "novelty classes": len(value.novelty_class) == len(value.novelty)
        and _codes_within(value.novelty_class + 1, n_classes + 1),
        "evidence": len(value.evidence) == len(value.novelty),
        "mixture": len(value.mixture) == len(value.novelty),
        "novelty folds": len(value.novelty_fold) == len(value.novelty)
        and _codes_within(value.novelty_fold, len(value.folds)),
        "reliability": value.reliability.shape[1] == 3,
        "temperature": value.temperature > 0,
    }
    return [name for name, right in fits.items() if not right]


def _codes_within(codes: np.ndarray, n: int) -> bool:
    return not len(codes) or bool(codes.min() >= 0 and codes.max() < n)


def cache_folder(
    reference: Reference, keys: Sequence[str], condition: Condition | None = None, method: str | None = None
) -> Path:
    """Where calibrations of a reference are kept: ``$SCGRAFT_CACHE`` or ``~/.cache/scgraft``, by model, cells, labels and method.

    Those for cells that were measured otherwise than the reference's have folders of their own.

    A repository that kept its counts has a calibration of its own: its classifier was trained on them.
    """
    import pandas as pd

    digest = hashlib.sha256(f"{FORMAT}{__version__}{reference.base.sha256}{reference.minified}{list(keys)}".encode())
    if condition is not None and not condition.as_reference:
        digest.update(f"{condition.share}".encode() + np.packbits(condition.genes).tobytes())
        for name in sorted(condition.blocks):
            digest.update(name.encode() + np.packbits(condition.blocks[name]).tobytes())
    if method is not None:
        digest.update(method.encode())
    if reference.latent is not None:
        digest.update(np.ascontiguousarray(reference.latent.mean).tobytes())
    for key in (reference.schema.batch_key, *keys):
        if reference.obs is not None and key in reference.obs:
            column = column_text(reference.obs[key]).astype(object)
            digest.update(pd.util.hash_array(column, categorize=True).tobytes())
    return cache_root() / "calibration" / digest.hexdigest()[:24]

"""What is known of a mapping as text: plain values for summary.json, and the table of its cells."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from scgraft._version import __version__
from scgraft.files.text import table_text
from scgraft.judgement.verdict import verdict_as_dict
from scgraft.results.summary_format import SUMMARY_FORMAT
from scgraft.values.mapping import MappedQuery

if TYPE_CHECKING:
    import pandas as pd

# Of the numbers in labels.csv: more digits than a calibration can justify.
DIGITS = "%.6g"


def cells_csv(mapped: MappedQuery) -> str:
    """What is written to labels.csv: the cells of a mapping, with names that a spreadsheet shows and does not run."""
    return safe_table(mapped.to_frame()).to_csv(float_format=DIGITS)


def safe_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table of cells with names that a spreadsheet shows and does not run."""
    table = table.rename(index=lambda name: table_text(str(name)), columns=lambda name: table_text(str(name)))
    for name in table.columns:
        if table[name].dtype.kind not in "biuf":
            table[name] = table[name].map(lambda value: table_text(str(value)), na_action="ignore")
    return table


def cluster_rows(mapped: MappedQuery) -> list[dict[str, object]]:
    """How each of the query's own clusters was mapped, the largest first; none without a calibration."""
    found, verdict = mapped.novelty, mapped.verdict
    if found is None or verdict is None or verdict.distance is None or verdict.preservation is None:
        return []
    result, rows = next(iter(mapped.labels.values()), None), []
    for cluster in np.unique(found.cluster).tolist():
        own = found.cluster == cluster
        kept = float(verdict.preservation[cluster])
        row: dict[str, object] = {
            "cluster": cluster,
            "cells": int(own.sum()),
            "novel": round(float(found.novel[own].mean()), 4),
            "distance": round(float(np.median(verdict.distance[own])), 3),
            "preservation": round(kept, 3) if np.isfinite(kept) else None,
        }
        if result is not None:
            names, number = np.unique(result.label[own], return_counts=True)
            best = int(number.argmax())
            row |= {"label": str(names[best]), "share": round(float(number[best] / own.sum()), 4)}
            row["probability"] = round(float(result.probability[own].mean()), 4)
        rows.append(row)
    return rows


def summary_of(mapped: MappedQuery) -> dict[str, object]:
    """What is written to summary.json."""
    return {
        "scgraft": __version__,
        "format": SUMMARY_FORMAT,
        "base": asdict(mapped.base),
        "summary": dict(mapped.summary),
        "alignment": asdict(mapped.alignment) | {"batch_key": mapped.alignment.batch_key},
        "record": asdict(mapped.graft.record),
        "batches": list(mapped.graft.batches),
        "verdict": None if mapped.verdict is None else verdict_as_dict(mapped.verdict),
        "novelty_threshold": None if mapped.novelty is None else 1.0,
        "unknown_groups": [] if mapped.novelty is None else [asdict(d) for d in mapped.novelty.dossiers],
        "states": [] if mapped.novelty is None else [asdict(s) for s in mapped.novelty.states],
        "clusters": cluster_rows(mapped),
        "calibration": {
            key: {
                "guarantee": value.guarantee,
                "learnt_from": value.classifier.source,
                "expected_error": round(value.expected_error, 4),
                "temperature": round(value.temperature, 3),
                "class_weights": {
                    name: round(float(weight), 3)
                    for name, weight in zip(value.classes, value.class_weights, strict=True)
                },
            }
            for key, value in mapped.calibration.items()
        },
    }

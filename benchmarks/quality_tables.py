"""The tables of the quality benchmark, from the JSON files in its cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from quality_splits import Split

COLUMNS = (
    "accuracy",
    "balanced",
    "macro_f1",
    "mixing",
    "batch_asw",
    "trust",
    "auroc_distance",
    "auroc_vote",
    "auroc_novelty",
    "seconds",
)


def collect(cache: Path, splits: Iterable[Split], seeds: Iterable[int], folder: Callable[..., Path]) -> list[dict]:
    """Every cell that the cache holds, as flat records."""
    found = []
    for split in splits:
        for seed in seeds:
            for path in sorted(folder(cache, split, seed).glob("*/*.json")):
                scores = json.loads(path.read_text(encoding="utf-8"))
                key = {"split": split.name, "kind": split.kind, "seed": seed}
                found.append(key | {"model": path.parent.name, "method": path.stem} | scores)
    return found


def tables(cache: Path, splits: Sequence[Split], seeds: Sequence[int], folder: Callable[..., Path]) -> str:
    """Means over the splits for each kind of shift, then each split with the spread over seeds."""
    records = collect(cache, splits, seeds, folder)
    text = []
    for model in ("SCVI", "SCANVI"):
        has_model = {s.name for s in splits if model in s.models}
        mine = [r for r in records if r["model"] in (model, "none") and r["split"] in has_model]
        text += [
            f"\n## {model}: means over splits and seeds\n",
            table(mine),
            f"\n## {model}: by kind (accuracy / mixing)\n",
        ]
        text += [by_kind(mine)]
        for split in (s for s in splits if s.name in has_model):
            own = [r for r in mine if r["split"] == split.name]
            text += [f"\n### {model}, {split.name} ({split.kind})\n", table(own, spread=True)]
    return "\n".join(text)


def methods_of(records: list[dict]) -> list[str]:
    return list(dict.fromkeys(r["method"] for r in sorted(records, key=lambda r: (r["model"], r["method"]))))


def cell(values: Sequence[float], spread: bool) -> str:
    values = [v for v in values if v is not None and np.isfinite(v)]
    if not values:
        return ""
    mean = f"{np.mean(values):.3f}" if np.mean(values) < 20 else f"{np.mean(values):.0f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if spread and len(values) > 1 else mean


def table(records: list[dict], *, spread: bool = False) -> str:
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for method in methods_of(records):
        own = [r for r in records if r["method"] == method]
        lines.append(f"| {method} | " + " | ".join(cell([r.get(c) for r in own], spread) for c in COLUMNS) + " |")
    return "\n".join(lines)


def by_kind(records: list[dict]) -> str:
    kinds = list(dict.fromkeys(r["kind"] for r in records))
    lines = ["| method | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for method in methods_of(records):
        cells = []
        for kind in kinds:
            own = [r for r in records if r["method"] == method and r["kind"] == kind]
            cells.append(
                f"{cell([r.get('accuracy') for r in own], False)} / {cell([r.get('mixing') for r in own], False)}"
            )
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

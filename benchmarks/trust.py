"""What labels, prediction sets, novelty and the verdict are worth on real splits, and on what shifts do to their queries.

``python benchmarks/trust.py OUT [--json FILE] [--only TEXT]``: OUT is the output of make_trust_references.py. Each split of
trust_splits.py is mapped as it is and with two of the changes of that file (`plan`), from the minified reference, as on the hub. Constants may be chosen on
the splits of the data sets in `TUNED`; the others prove them, and both means are printed.

``python benchmarks/trust.py --raw DIR --leave-one-data-set-out`` prints, from the arrays that runs with ``--raw DIR`` wrote, the numbers
for constants of the limits that were chosen without the data set that they are measured on.

``python benchmarks/trust.py --quality-cache DIR --json FILE`` compares with other methods instead; see trust_peers.py.
"""

import argparse
import json
import os
import time
from pathlib import Path

import anndata
import numpy as np
import trust_choice
import trust_peers
from trust_scores import auroc
from trust_splits import CHANGES, SPLITS, Split, folder_name

import scgraft
from scgraft.mapping.map import learn
from scgraft.numerics.conformal import expected_error, reliability
from scgraft.query.align import align_as
from scgraft.values.query import AlignOptions

ALPHAS = (0.2, 0.1, 0.05)
LEAST = 10  # cells that a number is computed from


def plan() -> list[tuple[Split, str]]:
    """Every split as it is, and with one of the changes in turn."""
    changes = list(CHANGES)[1:]
    return [pair for i, split in enumerate(SPLITS) for pair in ((split, ""), (split, changes[i % len(changes)]))]


def measure(reference: scgraft.Reference, query: anndata.AnnData) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Numbers of one mapping, and the arrays that they come from."""
    truth = query.obs["cell_type"].astype(str).to_numpy()
    began = time.process_time()
    aligned = align_as(reference, query, AlignOptions("batch", drop_empty=True))
    mapped, frozen = learn(
        reference, aligned, labels="auto", config=scgraft.FitConfig(), graft=None, calibration="auto"
    )
    seconds = time.process_time() - began
    truth = truth[query.obs_names.astype(str).get_indexer(mapped.latent.cells)]
    (result,) = mapped.labels.values()
    made = next(iter(mapped.calibration.values()))
    novelty, classes = mapped.novelty, np.array(result.classes)
    known = np.isin(truth, classes)
    code = np.searchsorted(classes, truth[known])
    rows = np.arange(len(code))
    out: dict[str, object] = {"cells": int(known.sum()), "seconds": round(seconds, 2), "light": mapped.verdict.light}
    out["lines"] = {m.name: m.light for m in mapped.verdict.measures}
    if len(code) >= LEAST:
        right = result.label[known] == truth[known]
        out["accuracy"] = float(right.mean())
        for name, vote in result.votes.items():
            out[f"accuracy, {name}"] = float((vote[known].argmax(axis=1) == code).mean())
        out["error"] = expected_error(reliability(result.probability[known], right))
        for alpha in ALPHAS:
            out[f"covered {1 - alpha:.2f}"] = float((result.pvalues[known][rows, code] > alpha).mean())
        out["set size 0.90"] = float((result.pvalues[known] > 0.1).sum(axis=1).mean())
        out["false alarms"] = float(novelty.novel[known].mean())
    out["misfit"] = float(novelty.misfit)
    if (~known).sum() >= LEAST and known.any():
        out["lacking"] = float((~known).mean())
        out["found"] = float(novelty.novel[~known].mean())
        out["AUROC"] = auroc(novelty.strength, ~known)
        out["AUROC, score"] = auroc(novelty.score, ~known)
        out["AUROC, distance"] = auroc(novelty.distance, ~known)
    rule = frozen.judgement.rule
    neighbours, _ = frozen.judgement.space.place(aligned.counts)
    arrays = {
        "neighbours": neighbours,
        "anchor_markers": rule.markers,
        "anchor_farther": rule.farther,
        "held_score": made.novelty,
        "held_evidence": made.evidence,
        "held_fold": made.novelty_fold,
        "known": known,
        "score": novelty.score,
        "strength": novelty.strength,
        "start": novelty.distance,
        "cluster": novelty.cluster,
    }
    return out, arrays


def table(rows: dict[str, dict[str, object]]) -> str:
    """Means over the splits of tuned and of unseen data sets, as they are and changed, and the worst of them."""
    names = (
        "accuracy",
        "error",
        "covered 0.80",
        "covered 0.90",
        "covered 0.95",
        "false alarms",
        "found",
        "AUROC",
        "AUROC, score",
    )
    tuned = {split.name for split in SPLITS if split.tuned}
    lines = ["| rows | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for title, wanted in (("tuned", True), ("unseen", False)):
        for change in (*CHANGES, "all"):
            chosen = [
                row
                for name, row in rows.items()
                if (name.split(" / ")[0] in tuned) == wanted and change in ("all", name.split(" / ")[1])
            ]
            cells = []
            for name in names:
                values = [row[name] for row in chosen if name in row]
                cells.append(f"{np.mean(values):.3f}" if values else "")
            lines.append(f"| {title}, {change or 'as it is'} | {len(chosen)} | " + " | ".join(cells) + " |")
        chosen = [row for name, row in rows.items() if (name.split(" / ")[0] in tuned) == wanted]
        alarms = [row["false alarms"] for row in chosen if "false alarms" in row]
        short = [row["covered 0.90"] for row in chosen if "covered 0.90" in row]
        if alarms:
            lines.append(
                f"{title}: false alarms above .10 in {np.mean(np.array(alarms) > 0.1):.0%} of {len(alarms)}, worst {max(alarms):.2f}; "
                f"coverage at 90 % more than 5 points short in {np.mean(np.array(short) < 0.85):.0%}, worst {min(short):.2f}; "
                f"green with coverage below .80: {sum(r['light'] == 'green' and r.get('covered 0.90', 1) < 0.8 for r in chosen)}; "
                f"red with accuracy and coverage above .9: "
                f"{sum(r['light'] == 'red' and min(r.get('accuracy', 0), r.get('covered 0.90', 0)) > 0.9 for r in chosen)}"
            )
    return "\n".join(lines)


def leave_one_data_set_out(folder: Path) -> str:
    """The table of :mod:`trust_choice` over the mappings whose arrays are in a folder."""
    raws, data_set = {}, {}
    for split, change in plan():
        path = folder / f"{folder_name(f'{split.name} / {change}')}.npz"
        if path.exists():
            raws[f"{split.name} / {change}"] = dict(np.load(path))
            data_set[f"{split.name} / {change}"] = split.file
    return trust_choice.leave_one_out(raws, data_set)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="splits whose name and change contain this")
    parser.add_argument("--raw", type=Path, help="folder for the arrays behind the numbers")
    parser.add_argument(
        "--leave-one-data-set-out",
        action="store_true",
        help="from the arrays in --raw: numbers for constants that were chosen without the data set, beside the shipped ones",
    )
    parser.add_argument(
        "--quality-cache", type=Path, help="cache of benchmarks/quality.py: compare with the peers in it"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.quality_cache:
        print(trust_peers.tables(trust_peers.run(options.quality_cache, options.json, options.seeds)))
        return
    if options.leave_one_data_set_out:
        print(leave_one_data_set_out(options.raw))
        return
    if options.out is None:
        parser.error("OUT is needed, or --quality-cache")
    os.environ.setdefault("SCGRAFT_CACHE", str(options.out / "cache"))
    rows: dict[str, dict[str, object]] = {}
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text(encoding="utf-8"))
    for split, change in plan():
        name, folder = f"{split.name} / {change}", options.out / folder_name(split.name)
        if name in rows or options.only not in name or not (folder / "README.md").exists():
            continue
        reference = scgraft.load_reference(folder)
        query = CHANGES[change](anndata.read_h5ad(folder.with_suffix(".h5ad")), reference.schema.genes.astype(str))
        rows[name], arrays = measure(reference, query)
        print(name, {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[name].items()}, flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if options.raw:
            options.raw.mkdir(parents=True, exist_ok=True)
            np.savez(options.raw / f"{folder_name(name)}.npz", **arrays)
    print(table(rows))


if __name__ == "__main__":
    main()

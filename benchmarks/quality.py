"""Which way of mapping puts cells where they belong: ours, scvi-tools' and others', on every split, over seeds.

    python benchmarks/quality.py --data ../shared/data --cache /somewhere --oracle /path/to/python --peers /path/to/python
    python benchmarks/quality.py --quick ...        one seed, four splits
    python benchmarks/quality.py --table ...        only print the tables of what the cache holds

Three interpreters: this one (scgraft, scikit-learn), one with scvi-tools, one with celltypist and symphonypy. Every cell
of the table is a JSON file in the cache (`--cache`, or SCGRAFT_BENCH_CACHE, or a folder in the system's temporary one):
what is there is not computed again. One process and one thread at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from quality_ranks import ranks
from quality_scores import Result, own_structure, score, weighted_vote
from quality_splits import QUICK, SPLITS, Split, query_cells, read_cells, reference_cells
from quality_tables import collect, tables

HERE = Path(__file__).resolve().parent
OURS = {
    "mean columns": {"epochs": 0},
    "ours, elbo": {"objective": "elbo"},
    "ours, atlas": {"objective": "atlas"},
    "ours": {},
}
LABELS = "ours, labels"  # the same fit, with the vote of the latent and of the genes that map_query gives by default
COUNTED = (
    "ours, labels, with counts"  # the same, from a repository that kept its counts: the genes' vote is trained on them
)
SCVI = ("random", "scvi-10", "scvi-100", "scvi-200")
PEERS = ("logistic", "celltypist", "symphony")


def reference_folder(cache: Path, split: Split, seed: int) -> Path:
    return cache / split.reference.name / str(seed)


def query_folder(cache: Path, split: Split, seed: int) -> Path:
    name = "".join(c if c.isalnum() else "-" for c in split.name)
    return reference_folder(cache, split, seed) / name


def prepare(data: Path, cache: Path, splits: Sequence[Split], seed: int) -> None:
    """Write the cells of references and queries that are not in the cache."""
    for split in splits:
        reference, query = reference_folder(cache, split, seed), query_folder(cache, split, seed)
        if (query / "query.h5ad").exists():
            continue
        query.mkdir(parents=True, exist_ok=True)
        adata = read_cells(data, split.reference.file)
        if not (reference / "cells.h5ad").exists():
            reference_cells(adata, split.reference, seed).write_h5ad(reference / "cells.h5ad", compression="gzip")
        query_cells(adata, split, seed).write_h5ad(query / "query.h5ad", compression="gzip")


def run_worker(python: str | None, script: str, jobs: list[dict[str, object]]) -> None:
    """Run a helper script under another interpreter; without one its rows stay empty."""
    if python is None or not jobs:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(jobs, file)
        file.flush()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        subprocess.run(
            [python, "-W", "ignore", str(HERE / script), file.name],
            check=False,
            env=environment,
            stderr=subprocess.DEVNULL,
        )


def jobs_of(cache: Path, splits: Sequence[Split], seed: int) -> list[dict[str, object]]:
    """One job for each reference, with the queries that are mapped on it."""
    jobs: dict[Path, dict[str, object]] = {}
    for split in splits:
        reference = reference_folder(cache, split, seed)
        job = jobs.setdefault(reference, {"reference": str(reference), "seed": seed, "models": [], "queries": {}})
        job["models"] = sorted(set(job["models"]) | set(split.models))  # type: ignore[call-overload]
        job["queries"][str(query_folder(cache, split, seed))] = list(split.models)  # type: ignore[index]
    return list(jobs.values())


def ours(reference: object, query: object, name: str, seed: int, cells: Path) -> dict[str, Result]:
    """Map with scgraft; `cells` are the reference's own, with counts. The seconds are those of fit and embedding, and of the labels without the reference's calibration."""
    import torch

    import scgraft
    from scgraft.calibration.calibrate import calibration_of
    from scgraft.graft.embed import embed
    from scgraft.graft.fit import fit
    from scgraft.labels.transfer import transfer_labels
    from scgraft.mapping.calibrated import calibrated
    from scgraft.values.mapping import MappedQuery

    torch.set_num_threads(1)  # scanpy's PCA, which the scores use, sets it to all cores
    config = replace(scgraft.FitConfig(labels="cell_type", device="cpu", seed=seed), **OURS[name])
    began = time.process_time()
    graft = fit(reference, query, config)
    latent = embed(reference, query, graft, device="cpu")
    seconds = time.process_time() - began
    labels = reference.obs["cell_type"].to_numpy().astype(str)
    vote = weighted_vote(reference.latent.mean, latent.mean, labels)
    results = {name: Result(*vote, seconds, reference.latent.mean, latent.mean)}
    if name != "ours":
        return results
    for row, source in ((LABELS, reference), (COUNTED, replace(reference, adata_path=cells, minified=None))):
        calibration = calibration_of(source, ["cell_type"])
        began = time.process_time()
        bare = transfer_labels(source, latent, labels=["cell_type"])
        mapped = MappedQuery(source.base, query.alignment, graft, latent, bare, {})
        trusted, _ = calibrated(source, query, mapped, calibration)
        took = seconds + time.process_time() - began
        found = trusted.labels["cell_type"]
        results[row] = Result(np.array(found.classes), found.matrix, took, novelty=trusted.novelty.strength)
    return results


def rows_of(
    family: str, folder: Path, reference: object, query: object, labels: np.ndarray, seed: int, again: bool
) -> dict[str, Result]:
    """Every row of a split for a model class that is not in the cache yet."""
    out = folder / family
    out.mkdir(exist_ok=True)
    results = {}

    def wanted(name: str) -> bool:
        return not (out / f"{name}.json").exists()

    if family == "none":
        for name in PEERS:
            if wanted(name) and (out / f"{name}.npz").exists():
                results[name] = from_file(out / f"{name}.npz", labels)
        return results
    for name in OURS:
        rows = (name, LABELS, COUNTED) if name == "ours" else (name,)
        missing = [row for row in rows if again or wanted(row)]
        if missing:
            made = ours(reference, query, name, seed, folder.parent / "cells.h5ad")
            results |= {row: made[row] for row in missing}
    for name in SCVI:
        path = out / f"{name}.npz"
        if not path.exists():
            continue
        content = dict(np.load(path))
        seconds = float(content["seconds"])
        latents = reference.latent.mean, content["latent"]
        for row, k in ((name, 30), (f"{name}, scArches kNN", 50)):
            if wanted(row) and (k == 30 or name == "scvi-100"):
                results[row] = Result(*weighted_vote(*latents, labels, k), seconds, *latents)
        row = f"{name}, predict"
        if "probability" in content and wanted(row) and name != "random":
            results[row] = Result(content["classes"], content["probability"], seconds, *latents)
    return results


def from_file(path: Path, labels: np.ndarray) -> Result:
    """A peer's result."""
    content = dict(np.load(path))
    seconds = float(content["seconds"])
    if "probability" in content:
        return Result(content["classes"], content["probability"], seconds)
    classes, vote = weighted_vote(content["reference"], content["latent"], labels)
    # The peer's own labels count; the vote is only for its uncertainty.
    own = np.zeros_like(vote)
    own[np.arange(len(vote)), np.searchsorted(classes, content["label"])] = 1e-6
    named = vote.max(axis=1, keepdims=True) * (own > 0) + own
    return Result(classes, named, seconds, content["reference"], content["latent"])


def score_split(cache: Path, split: Split, seed: int, again: bool) -> None:
    """Score every method on a split, one JSON file for each."""
    import anndata

    import scgraft
    from scgraft.query.align import align

    folder = query_folder(cache, split, seed)
    truth = anndata.read_h5ad(folder / "query.h5ad")
    types, batches = (truth.obs[c].to_numpy().astype(str) for c in ("cell_type", "batch"))
    own = None
    for family in ("none", *split.models):
        reference = query = None
        if family == "none":
            obs = anndata.read_h5ad(reference_folder(cache, split, seed) / "cells.h5ad", backed="r").obs
        else:
            hub = reference_folder(cache, split, seed) / family / "hub"
            if not (hub / "adata.h5ad").exists():
                continue
            reference = scgraft.load_reference(hub)
            query = align(reference, truth, batch_key="batch")
            obs = reference.obs
        labels = obs["cell_type"].to_numpy().astype(str)
        for name, result in rows_of(family, folder, reference, query, labels, seed, again).items():
            own = own_structure(truth.X, batches) if own is None else own
            scores = score(result, labels, types, batches, own)
            path = folder / family / f"{name}.json"
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps({k: round(float(v), 5) for k, v in scores.items()}), encoding="utf-8")
            os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    default = os.environ.get("SCGRAFT_BENCH_CACHE", str(Path(tempfile.gettempdir()) / "scgraft-quality"))
    parser.add_argument("--cache", type=Path, default=Path(default))
    parser.add_argument("--oracle", default=os.environ.get("SCGRAFT_ORACLE"), help="python with scvi-tools")
    parser.add_argument("--peers", default=os.environ.get("SCGRAFT_PEERS"), help="python with celltypist, symphonypy")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed and four splits")
    parser.add_argument("--again", action="store_true", help="fit our own rows again, after a change of the package")
    parser.add_argument("--table", action="store_true", help="print the tables of what the cache holds")
    options = parser.parse_args()
    splits = [s for s in SPLITS if not options.quick or s.name in QUICK]
    seeds = range(1 if options.quick else options.seeds)
    for seed in seeds if not options.table else ():
        prepare(options.data, options.cache, splits, seed)
        jobs = jobs_of(options.cache, splits, seed)
        run_worker(options.oracle, "quality_oracle.py", jobs)
        run_worker(options.peers, "quality_peers.py", jobs)
        for split in splits:
            score_split(options.cache, split, seed, options.again)
            print(f"seed {seed}: {split.name}", flush=True)
    print(tables(options.cache, splits, seeds, query_folder))
    if len(seeds) > 1:
        records = collect(options.cache, splits, seeds, query_folder)
        print("\n## Ranks\n\n" + "\n\n".join(ranks(records, metric) for metric in ("accuracy", "balanced")))


if __name__ == "__main__":
    main()

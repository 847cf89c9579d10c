"""scgraft's side of the speed benchmarks: ``python speed_scgraft.py TASK ARGUMENTS-AS-JSON`` prints one line of JSON."""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np


def memory() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fit(reference: str, cells: str, configs: dict, out: str) -> dict:
    """CPU seconds from files to a graft, for several settings; the columns of each are written for the judge."""
    import anndata

    import scgraft

    adata = anndata.read_h5ad(cells)
    result = {}
    for name, settings in configs.items():
        began = time.process_time()
        wall = time.perf_counter()
        base = scgraft.load_reference(reference)
        query = scgraft.align(base, adata, batch_key="batch")
        graft = scgraft.fit(base, query, scgraft.FitConfig(**settings))
        result[name] = {
            "cpu": time.process_time() - began,
            "wall": time.perf_counter() - wall,
            "steps": graft.record.steps,
            "fit_seconds": graft.record.seconds,
            "file": f"{out}-{name}.npz",
            "memory_mb": memory(),
        }
        keys = {s.name: s.key for s in slots(base)}
        np.savez(result[name]["file"], levels=np.array(graft.batches), **{keys[n]: r for n, r in graft.rows.items()})
    return result


def slots(reference):
    """Places of the reference's model that have columns of a batch."""
    from scgraft.model.families import family_of

    return family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)


def embed(reference: str, cells: str, columns: str, latent: str) -> dict:
    """Cells per CPU second of `embed` with scvi-tools' columns, and the largest difference from its latent."""
    import anndata

    import scgraft

    base = scgraft.load_reference(reference)
    query = scgraft.align(base, anndata.read_h5ad(cells), batch_key="batch")
    with np.load(columns) as data:
        levels = tuple(str(level) for level in data["levels"])
        rows = {s.name: data[s.key] for s in slots(base)}
    record = scgraft.fit(base, query, scgraft.FitConfig(epochs=0)).record
    graft = scgraft.Graft(base.base, {"batch": levels}, rows, record)
    rates = []
    for _ in range(3):
        began = time.process_time()
        found = scgraft.embed(base, query, graft)
        rates.append(len(found.mean) / (time.process_time() - began))
    expected = np.load(latent)
    return {
        "first": rates[0],
        "warm": max(rates),
        "difference": float(np.abs(found.mean - expected).max() / np.abs(expected).max()),
    }


def command(reference: str, cells: str, out: str, options: list, cache: str) -> dict:
    """CPU seconds, wall time and peak memory of ``scgraft map``, from process start to written labels."""
    began = time.perf_counter()
    line = [sys.executable, "-m", "scgraft.cli", "map", cells, "--reference", reference, "--batch-key", "batch"]
    line += ["--labels", "cell_type", "--out", out, "--force", *options]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"SCGRAFT_CACHE": cache})
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": time.perf_counter() - began,
        "memory_mb": usage.ru_maxrss / 1024,
    }


def scaling(reference: str, cells: str) -> dict:
    """CPU seconds of each step for one size of query, and the peak memory after it."""
    import anndata

    import scgraft

    base = scgraft.load_reference(reference)
    seconds, began = {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = time.process_time() - began
        began = time.process_time()

    adata = anndata.read_h5ad(cells)
    lap("read")
    query = scgraft.align(base, adata, batch_key="batch")
    lap("align")
    memory_before = memory()
    graft = scgraft.fit(base, query)
    lap("fit")
    latent = scgraft.embed(base, query, graft)
    lap("embed")
    scgraft.transfer_labels(base, latent, labels=["cell_type"])
    lap("transfer")
    return {
        "cells": len(latent.mean), "fit_cells": graft.record.n_fit_cells, **seconds,
        "memory_mb": memory(), "memory_after_align_mb": memory_before,
    }  # fmt: skip


def hub(reference: str, cells: str, configs: dict, out: str) -> dict:
    """Latents of a real query under several settings, with the CPU seconds of each fit."""
    import anndata

    import scgraft

    adata = anndata.read_h5ad(cells)
    base = scgraft.load_reference(reference)
    query = scgraft.align(base, adata, batch_key="batch")
    result = {}
    np.savez(f"{out}-reference.npz", mean=base.latent.mean, label=base.obs["cell_type"].to_numpy().astype(str))
    for name, settings in configs.items():
        began = time.process_time()
        graft = scgraft.fit(base, query, scgraft.FitConfig(**settings))
        result[name] = {"cpu": time.process_time() - began}
        np.save(f"{out}-{name}.npy", scgraft.embed(base, query, graft).mean)
    return result


TASKS = {"fit": fit, "embed": embed, "command": command, "scaling": scaling, "hub": hub}

if __name__ == "__main__":
    if sys.argv[1] != "command":
        import torch

        torch.set_num_threads(1)
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))

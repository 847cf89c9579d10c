"""Cost and memory of a mapping against its number of cells and the reference's: ``python benchmarks/scale.py --work DIR``.

Generated cells from the seeded generator of ``scgraft.testing`` (random weights, 500 genes, about 400 counts stored of each cell;
50,000 of them differ, larger files repeat these under other names), one thread, a fresh process for each row. CPU seconds and the
peak of resident memory are of whole processes, with their libraries, and of all of them where there are several. Files that were made
are kept in DIR and used again, and so are rows that were measured (``rows.jsonl``): run it in portions.

Ways: ``memory``; ``parts`` (``scgraft map --memory``); ``shards``, the same in eight processes one after the other
(``--shard 1/8``...); ``workers``, the same by a LocalCluster of two; ``scvi``, scvi-tools' surgery without training and its embedding of
the same file (``--scvi PYTHON``), whose time has neither labels nor a fit in it.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

TYPES = tuple(f"type {i}" for i in range(1, 21))
REFERENCE = TinyConfig(
    n_genes=500, n_cells=20_000, n_hidden=64, n_latent=10, batches=tuple(f"b{i}" for i in range(6)), labels=TYPES,
    encode_covariates=True, minified="latent_posterior_parameters",
)  # fmt: skip
BATCHES = ("lab 1", "lab 2", "lab 3", "lab 4")
BLOCK, BLOCKS, SHARDS = 10_000, 5, 8
WAYS, WHAT = ("memory", "parts", "shards", "workers", "scvi"), ("labels", "everything")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
HEAD = "| reference | cells | what | way | CPU s | wall s | peak GB | written MB |\n|---|---|---|---|---|---|---|---|"


def write_cells(path: Path, n: int) -> None:
    """Cells in an .h5ad, block by block: each block has its own seed, so a larger file begins with a smaller one."""
    part, made = path.with_suffix(".part"), {}
    with h5py.File(part, "w") as file:
        matrix = file.create_group("X")
        matrix.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n, REFERENCE.n_genes]}
        )
        for name, kind in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
            matrix.create_dataset(name, (1 if name == "indptr" else 0,), kind, maxshape=(None,), chunks=(1 << 18,))
        obs = []
        for start in range(0, n, BLOCK):
            seed = start // BLOCK % BLOCKS
            if seed not in made:
                made[seed] = tiny_query(REFERENCE, n_cells=BLOCK, batches=BATCHES, seed=seed + 1)
            cells = made[seed][: n - start]
            ends = cells.X.indptr[1:].astype(np.int64) + matrix["indptr"][-1]
            for name, values in (("data", cells.X.data), ("indices", cells.X.indices), ("indptr", ends)):
                size = len(matrix[name])
                matrix[name].resize((size + len(values),))
                matrix[name][size:] = values
            obs.append(cells.obs[["batch"]])
        table = pd.concat(obs).astype("category").set_axis([f"cell {i}" for i in range(n)], axis=0)
        write_elem(file, "obs", table)
        write_elem(file, "var", cells.var)
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    part.rename(path)


def write_reference(folder: Path, n: int) -> None:
    """A reference of n cells: those of 20,000, again and again, each time elsewhere by a tenth of their spread."""
    write_hub_folder(folder, REFERENCE)
    if n <= REFERENCE.n_cells:
        return
    import anndata
    from scipy.sparse import csr_matrix

    path = folder / "adata.h5ad"
    few = anndata.read_h5ad(path)
    at, rng = np.arange(n) % few.n_obs, np.random.default_rng(0)
    obs = few.obs.iloc[at].set_axis([f"cell{i}" for i in range(n)], axis=0)
    many = anndata.AnnData(csr_matrix((n, few.n_vars), dtype=np.float32), obs=obs, var=few.var, uns=few.uns)
    for key, values in few.obsm.items():
        spread = 0.1 * values.std(axis=0) if "qzv" not in key else 0
        many.obsm[key] = (values[at] + spread * rng.standard_normal((n, values.shape[1]))).astype(np.float32)
    many.write_h5ad(path)


def scgraft_row(work: Path, reference: int, n: int, way: str, what: str, shard: int | None) -> dict[str, float]:
    """Map, in this process."""
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query
    from scgraft.query.read import read_query
    from scgraft.results.folder import write
    from scgraft.results.stream import Job, gather, map_in_parts
    from scgraft.values.graft import FitConfig
    from scgraft.values.query import AlignOptions

    path, out = work / f"query-{n}.h5ad", work / f"out-{reference}-{n}-{what}"
    atlas, config = load_reference(work / f"reference-{reference}"), FitConfig(device="cpu", progress=False)
    trusted = "auto" if what == "everything" else None
    job = Job(path, AlignOptions(batch_key="batch"), config=config, calibration=trusted, page=False)
    quiet = {"force": True, "say": lambda line: None}
    if way == "memory":
        adata = read_query(path)
        mapped = map_query(atlas, adata, batch_key="batch", config=config, calibration=trusted)
        write(mapped, adata, out, reference=atlas, page=False, force=True)
    elif way == "parts":
        map_in_parts(atlas, job, out, **quiet)
    elif way == "workers":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            map_in_parts(atlas, job, out, client=client, **quiet)
    elif shard is not None and shard < SHARDS:
        map_in_parts(atlas, job, out, shard=(shard, SHARDS), **quiet)
        return {"size": 0}
    else:
        gather(out.with_name(f"{out.name}.parts"), force=True)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
    shutil.rmtree(out)
    return {"size": size}


def scvi_row(work: Path, reference: int, n: int) -> dict[str, float]:
    """Embed by scvi-tools, in this process, which is of an environment with it."""
    import anndata
    import scvi

    adata = anndata.read_h5ad(work / f"query-{n}.h5ad")
    adata.obs["cell_type"] = "type 1"
    scvi.model.SCVI.prepare_query_anndata(adata, str(work / f"reference-{reference}"))
    model = scvi.model.SCVI.load_query_data(adata, str(work / f"reference-{reference}"))
    model.is_trained = True
    np.save(work / "latent.npy", model.get_latent_representation())
    return {"size": (work / "latent.npy").stat().st_size / 1e6}


def measured(made: dict[str, float], began: float) -> dict[str, float]:
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    return made | {"cpu": cpu, "wall": time.perf_counter() - began, "peak": max(own.ru_maxrss, others.ru_maxrss) / 1e6}


def run(given: argparse.Namespace, row: tuple[int, int, str, str], shard: int | None = None) -> dict[str, float]:
    """One process: what it took."""
    reference, n, way, what = row
    python = given.scvi if way == "scvi" else sys.executable
    line = [
        *shlex.split(given.through),
        python,
        __file__,
        "--work",
        str(given.work),
        "--row",
        str(reference),
        str(n),
        way,
        what,
    ]
    line += [] if shard is None else ["--shard", str(shard)]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{row} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(given: argparse.Namespace, row: tuple[int, int, str, str]) -> dict[str, float]:
    """One row: of several processes the sum of the times and sizes, and the largest peak."""
    if row[2] != "shards":
        return run(given, row)
    found = [run(given, row, shard) for shard in range(SHARDS + 1)]
    sums = {name: sum(f[name] for f in found) for name in ("cpu", "wall", "size")}
    return sums | {"peak": max(f["peak"] for f in found)}


def stored(work: Path) -> dict[tuple[int, int, str, str], dict[str, float]]:
    """Rows that were measured; the last of each."""
    path = work / "rows.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(r["reference"], r["cells"], r["way"], r["what"]): r for r in lines}


def line_of(row: tuple[int, int, str, str], found: dict[str, float]) -> str:
    reference, n, way, what = row
    numbers = f"{found['cpu']:.0f} | {found['wall']:.0f} | {found['peak']:.2f} | {found['size']:.0f}"
    return f"| {reference:,} | {n:,} | {what} | {way} | {numbers} |"


def exponents(rows: dict[tuple[int, int, str, str], dict[str, float]]) -> list[str]:
    """How CPU seconds and peak memory grow from the smallest number of cells to the largest, way by way: cells ** exponent."""
    lines = []
    for reference, way, what in dict.fromkeys((r, w, t) for r, _, w, t in sorted(rows)):
        own = {n: found for (r, n, w, t), found in rows.items() if (r, w, t) == (reference, way, what)}
        if len(own) < 2:
            continue
        low, high = min(own), max(own)
        grow = {name: np.log(own[high][name] / own[low][name]) / np.log(high / low) for name in ("cpu", "peak")}
        lines.append(
            f"reference of {reference:,}, {what}, {way}: {low:,} to {high:,} cells: CPU ** {grow['cpu']:.2f}, peak ** {grow['peak']:.2f}"
        )
    return lines


def plot(rows: dict[tuple[int, int, str, str], dict[str, float]], path: Path) -> None:
    """CPU seconds and peak memory against cells, for the smallest reference."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "scgraft", "font.size": 9}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    smallest = min(r for r, *_ in rows)
    for way, what in dict.fromkeys((w, t) for r, _, w, t in sorted(rows) if r == smallest):
        own = sorted((n, f) for (r, n, w, t), f in rows.items() if (r, w, t) == (smallest, way, what))
        for axis, name in zip(axes, ("cpu", "peak"), strict=True):
            style = "-" if what == "everything" else "--"
            axis.plot(
                [n for n, _ in own], [f[name] for _, f in own], style, marker="o", markersize=4, label=f"{way}, {what}"
            )
    for axis, title in zip(axes, ("CPU seconds", "peak of resident memory, GB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="cells", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """The table, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--references", type=int, nargs="*", default=[20_000, 100_000, 600_000, 2_000_000])
    parser.add_argument("--cells", type=int, nargs="*", default=[20_000, 100_000, 300_000, 1_000_000, 3_000_000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["memory", "parts", "workers"])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--through", default="", help="A command that each process is started by (a queue, `nice`).")
    parser.add_argument("--scvi", help="A Python with scvi-tools.")
    parser.add_argument("--plot", type=Path, help="Draw all rows that are stored into this file.")
    parser.add_argument("--row", nargs=4)
    parser.add_argument("--shard", type=int)
    given = parser.parse_args()
    work: Path = given.work
    os.environ["SCGRAFT_CACHE"] = str(work / "cache")
    if given.row:
        began, (reference, n, way, what) = time.perf_counter(), given.row
        made = scvi_row(work, int(reference), int(n)) if way == "scvi" else scgraft_row(
            work, int(reference), int(n), way, what, given.shard
        )  # fmt: skip
        print(json.dumps(measured(made, began)))
        return
    work.mkdir(parents=True, exist_ok=True)
    for reference in given.references:
        if not (work / f"reference-{reference}").exists():
            write_reference(work / f"reference-{reference}", reference)
    print(HEAD, flush=True)
    for row in [
        (r, n, way, t) for r in given.references for n in given.cells for t in given.what for way in given.ways
    ]:
        reference, n, way, what = row
        if way == "scvi" and (what == "everything" or not given.scvi):
            continue
        if row not in stored(work):
            if not (work / f"query-{n}.h5ad").exists():
                write_cells(work / f"query-{n}.h5ad", n)
            found = measure(given, row)
            with (work / "rows.jsonl").open("a") as file:
                file.write(json.dumps({"reference": reference, "cells": n, "way": way, "what": what} | found) + "\n")
        print(line_of(row, stored(work)[row]), flush=True)
    print(*exponents(stored(work)), sep="\n")
    if given.plot:
        plot(stored(work), given.plot)


if __name__ == "__main__":
    main()

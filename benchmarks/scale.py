"""Cost and memory of a mapping against its number of cells and the reference's: ``python benchmarks/scale.py --work DIR``.

The files are those of ``scale_cells.py``: 20,000 genes in the file, 3,000 in the reference. One thread, a fresh process for each row.
CPU seconds and the peak of resident memory are of whole processes, with their libraries, and of all of them where there are several;
wall seconds are worth something on an idle machine only. Files that were made are kept in DIR and used again, and so are rows that were
measured (``rows.jsonl``, a line as soon as it is there): run it in portions. Everything is measured with the calibration of the
reference made before (the way ``calibrate``).

Ways: ``memory``; ``parts`` (``scgraft map --memory``); ``shards``, the same in eight processes one after the other
(``--shard 1/8``...); ``workers``, the same by a LocalCluster of two; ``scvi``, scvi-tools' surgery without training and its embedding of
the same file (``--scvi PYTHON``), whose time has neither labels nor a fit in it; ``read``, the counts of the file read once and dropped,
as much at a time as the others read; ``calibrate``, the reference alone, without cells.
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

import numpy as np
from scale_cells import FIRST, write_cells, write_reference

SHARDS, CONDITION = 8, 2_000
WAYS, WHAT = ("memory", "parts", "shards", "workers", "scvi", "read", "calibrate"), ("labels", "everything")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
HEAD = "| reference | cells | what | way | CPU s | wall s | peak GB | written MB |\n|---|---|---|---|---|---|---|---|"


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
    peak, quiet = 0.0, {"force": True, "say": lambda line: None}
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
            peak = max(client.run(peak_of_process).values())
    elif shard is not None and shard < SHARDS:
        map_in_parts(atlas, job, out, shard=(shard, SHARDS), **quiet)
        return {"size": 0}
    else:
        gather(out.with_name(f"{out.name}.parts"), force=True)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
    shutil.rmtree(out)
    return {"size": size, "peak of workers": peak}


def read_row(work: Path, n: int) -> dict[str, float]:
    """Read the counts, as many cells at a time as a mapping does."""
    from scgraft.query.cell_file import BLOCK
    from scgraft.query.on_disk import OnDisk

    matrix, stored = OnDisk(work / f"query-{n}.h5ad", "X"), 0
    for start in range(0, n, BLOCK):
        stored += matrix[start : start + BLOCK].nnz
    return {"size": 8 * stored / 1e6}


def calibrate_row(work: Path, reference: int) -> dict[str, float]:
    """The first calibration of a reference, for cells like those of the files, kept for the other rows; its CPU seconds alone."""
    import anndata

    from scgraft.calibration.calibrate import calibrate
    from scgraft.calibration.condition import condition_of
    from scgraft.calibration.store import cache_folder, save_calibration
    from scgraft.mapping.load import load_reference
    from scgraft.query.align import align

    atlas, cells = load_reference(work / f"reference-{reference}"), anndata.read_h5ad(work / f"query-{FIRST}.h5ad")
    condition = condition_of(atlas, align(atlas, cells[:CONDITION].copy(), batch_key="batch"))
    began = time.process_time()
    made = calibrate(atlas, list(atlas.schema.label_keys), genes=condition.genes, share=condition.share, progress=False)
    spent = time.process_time() - began
    folder = cache_folder(atlas, list(atlas.schema.label_keys), condition)
    save_calibration(made, folder)
    return {"size": sum(p.stat().st_size for p in folder.iterdir()) / 1e6, "cpu": spent}


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


def peak_of_process() -> float:
    """Peak of this process's resident memory, GB. That of getrusage begins with the memory of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e9


def made_by(work: Path, reference: int, n: int, way: str, what: str, shard: int | None) -> dict[str, float]:
    """A row, in this process."""
    if way == "scvi":
        return scvi_row(work, reference, n)
    if way == "read":
        return read_row(work, n)
    if way == "calibrate":
        return calibrate_row(work, reference)
    return scgraft_row(work, reference, n, way, what, shard)


def measured(made: dict[str, float], began: float) -> dict[str, float]:
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    peak = max(peak_of_process(), made.pop("peak of workers", 0.0))
    return {"cpu": cpu, "wall": time.perf_counter() - began, "peak": peak} | made


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


def rows_of(given: argparse.Namespace) -> list[tuple[int, int, str, str]]:
    """Reference, cells, way and what of each row; reading needs no reference, and calibrating no cells."""
    rows = [
        (r, n, way, what) for r in given.references for n in given.cells for what in given.what for way in given.ways
    ]
    once = {"read": lambda r, n: (0, n, "read", "counts"), "calibrate": lambda r, n: (r, 0, "calibrate", "everything")}
    rows = [once[way](r, n) if way in once else (r, n, way, what) for r, n, way, what in rows]
    return list(dict.fromkeys(row for row in rows if row[2] != "scvi" or row[3] == "labels" and given.scvi))


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
    """CPU seconds and peak memory against cells, for the smallest reference, and of reading alone."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "scgraft", "font.size": 9}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    smallest = min(r for r, *_ in rows if r)
    shown = {row: found for row, found in rows.items() if row[0] in (0, smallest) and row[1]}
    for way, what in dict.fromkeys((w, t) for _, _, w, t in sorted(shown)):
        own = sorted(((n, f) for (_, n, w, t), f in shown.items() if (w, t) == (way, what)), key=lambda pair: pair[0])
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
        print(json.dumps(measured(made_by(work, int(reference), int(n), way, what, given.shard), began)))
        return
    work.mkdir(parents=True, exist_ok=True)
    for reference in given.references:
        if not (work / f"reference-{reference}").exists():
            write_reference(work / f"reference-{reference}", reference)
    print(HEAD, flush=True)
    for row in rows_of(given):
        reference, n, way, what = row
        if row not in stored(work):
            if not (work / f"query-{n or FIRST}.h5ad").exists():
                write_cells(work / f"query-{n or FIRST}.h5ad", n or FIRST)
            found = measure(given, row)
            with (work / "rows.jsonl").open("a") as file:
                file.write(json.dumps({"reference": reference, "cells": n, "way": way, "what": what} | found) + "\n")
        print(line_of(row, stored(work)[row]), flush=True)
    print(*exponents(stored(work)), sep="\n")
    if given.plot:
        plot(stored(work), given.plot)


if __name__ == "__main__":
    main()

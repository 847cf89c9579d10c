"""Cost and memory of a mapping against its number of cells, in memory and in parts: ``python benchmarks/scale.py --work DIR``.

Generated cells from the seeded generator of ``scgraft.testing`` (random weights, 500 genes, about 360 counts stored of each
cell), one thread, a fresh process for each row. CPU seconds and the peak of resident memory are of the whole process. Files that
were made are kept in DIR and used again.
"""

import argparse
import json
import os
import resource
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
BLOCK = 10_000
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def write_cells(path: Path, n: int) -> None:
    """Cells in an .h5ad, block by block: each block has its own seed, so a larger file begins with a smaller one."""
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        matrix = file.create_group("X")
        matrix.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n, REFERENCE.n_genes]}
        )
        for name, kind in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
            matrix.create_dataset(name, (1 if name == "indptr" else 0,), kind, maxshape=(None,), chunks=(1 << 18,))
        obs = []
        for start in range(0, n, BLOCK):
            cells = tiny_query(REFERENCE, n_cells=min(BLOCK, n - start), batches=BATCHES, seed=start + 1)
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


def run(work: Path, n: int, how: str, what: str) -> dict[str, float]:
    """One row, in a fresh process."""
    line = [sys.executable, __file__, "--work", str(work), "--row", str(n), how, what]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{n} {how} {what} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(work: Path, n: int, how: str, what: str) -> None:
    """Map, and print what it took as one line of JSON."""
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query
    from scgraft.query.read import read_query
    from scgraft.results.folder import write
    from scgraft.results.stream import Job, map_in_parts
    from scgraft.values.graft import FitConfig
    from scgraft.values.query import AlignOptions

    path, out = work / f"query-{n}.h5ad", work / "out"
    reference, config = load_reference(work / "reference"), FitConfig(device="cpu")
    trusted = "auto" if what == "everything" else None
    wall = time.perf_counter()
    if how == "parts":
        job = Job(path, AlignOptions(batch_key="batch"), config=config, calibration=trusted, page=False)
        map_in_parts(reference, job, out, force=True, say=lambda line: None)
    else:
        adata = read_query(path)
        mapped = map_query(reference, adata, batch_key="batch", config=config, calibration=trusted)
        write(mapped, adata, out, reference=reference, page=False, force=True)
    used = resource.getrusage(resource.RUSAGE_SELF)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(
        json.dumps(
            {
                "cpu": used.ru_utime + used.ru_stime,
                "wall": time.perf_counter() - wall,
                "peak": used.ru_maxrss / 1e6,
                "size": size / 1e6,
            }
        )
    )


def main() -> None:
    """The table, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 100_000, 300_000])
    parser.add_argument("--how", nargs="+", default=["memory", "parts"])
    parser.add_argument("--what", nargs="+", default=["labels", "everything"])
    parser.add_argument("--row", nargs=3)
    given = parser.parse_args()
    work: Path = given.work
    os.environ["SCGRAFT_CACHE"] = str(work / "cache")
    if given.row:
        row(work, int(given.row[0]), *given.row[1:])
        return
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "reference").exists():
        write_hub_folder(work / "reference", REFERENCE)
    print("| cells | how | what | CPU s | wall s | peak GB | written MB |\n|---|---|---|---|---|---|---|", flush=True)
    for n in given.cells:
        if not (work / f"query-{n}.h5ad").exists():
            write_cells(work / f"query-{n}.h5ad", n)
        for how in given.how:
            for what in given.what:
                found = run(work, n, how, what)
                numbers = f"{found['cpu']:.0f} | {found['wall']:.0f} | {found['peak']:.2f} | {found['size']:.0f}"
                print(f"| {n:,} | {how} | {what} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()

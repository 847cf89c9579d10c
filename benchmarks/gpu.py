"""What a GPU gains, beside what must cross to it: ``python benchmarks/gpu.py``; ``--device cpu`` tries the script without one.

Generated cells from the seeded generator of ``scgraft.testing`` (random weights). For each number of cells: the fit (its columns), the
embedding, and the exact neighbours, on the CPU and on the device, wall seconds after one run to warm up; how many bytes of counts must
cross, how fast pinned memory does, and so the seconds below which no embedding of them can be.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.mapping.load import load_reference
from scgraft.model.build import take_cells
from scgraft.numerics.neighbors import nearest
from scgraft.query.align import align
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig

REFERENCE = TinyConfig(
    n_genes=3000, n_cells=5000, n_hidden=128, n_latent=20, batches=("b0", "b1", "b2"), encode_covariates=True,
    minified="latent_posterior_parameters",
)  # fmt: skip
BLOCK, SENT = 5000, 1 << 28


def wall(call: Callable[[], object], device: str, *, turns: int = 3) -> float:
    """Median seconds of a call after one that is not counted."""
    times = []
    for turn in range(turns + 1):
        began = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        times += [time.perf_counter() - began] if turn else []
    return float(np.median(times))


def bytes_a_second(device: str) -> float:
    """How fast pinned memory of 256 MB crosses to the device."""
    if device == "cpu":
        return float("nan")
    there, here = torch.empty(SENT, dtype=torch.uint8, device=device), torch.empty(SENT, dtype=torch.uint8).pin_memory()
    return SENT / wall(lambda: there.copy_(here, non_blocking=True), device)


def main() -> None:
    """A table, and the same as JSON."""
    import tempfile
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--json", type=Path, help="Write the numbers into this file, too.")
    given = parser.parse_args()
    if given.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here. `--device cpu` tries the script.")
    with tempfile.TemporaryDirectory() as folder:
        reference = load_reference(write_hub_folder(Path(folder) / "reference", REFERENCE))
    speed, rows = bytes_a_second(given.device), []
    print(f"{given.device}: {speed / 1e9:.1f} GB/s from pinned memory")
    print("| cells | what | CPU s | device s | ratio | bytes that cross | least s |\n|---|---|---|---|---|---|---|")
    one = align(reference, tiny_query(REFERENCE, n_cells=BLOCK, batches=("new 1", "new 2")), batch_key="batch")
    graft = fit(reference, one, FitConfig(device="cpu"))
    for n in given.cells:
        query = take_cells(one, np.arange(n) % BLOCK)
        crossing = query.counts.data.nbytes + query.counts.indices.nbytes + query.counts.indptr.nbytes
        points = embed(reference, query, graft, device="cpu").mean
        calls = {
            "embed": lambda d, query=query: embed(reference, query, graft, device=d),
            "fit": lambda d, query=query: fit(reference, query, FitConfig(device=d, max_steps=100)),
        }
        for what, call in calls.items():
            times = [wall(lambda call=call, d=d: call(d), d) for d in ("cpu", given.device)]
            least = crossing / speed if what == "embed" else float("nan")
            rows.append(
                {"cells": n, "what": what, "cpu": times[0], "device": times[1], "bytes": crossing, "least": least}
            )
        here = wall(lambda points=points: nearest(reference.latent.mean, points, k=30), "cpu", turns=1)
        rows.append(
            {
                "cells": n,
                "what": "neighbours",
                "cpu": here,
                "device": float("nan"),
                "bytes": points.nbytes,
                "least": float("nan"),
            }
        )
        for row in rows[-3:]:
            ratio = row["cpu"] / row["device"]
            print(
                f"| {n:,} | {row['what']} | {row['cpu']:.2f} | {row['device']:.2f} | {ratio:.1f} | {row['bytes']:,} | {row['least']:.3f} |"
            )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

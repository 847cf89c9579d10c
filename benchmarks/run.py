"""Speed, side by side with scvi-tools 1.4.2: ``python benchmarks/run.py --scvi PYTHON [--only PART ...]``.

PYTHON is an interpreter that has scvi-tools (``make benchmarks`` makes one). One thread each, CPU seconds of fresh
processes, the two sides alternated, at least three pairs, medians. Generated cells and trained references are kept in
``--work``. Prints tables in markdown; the numbers behind them go to ``--work``/speed.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import speed_cells

HERE = Path(__file__).parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
REFERENCES = ("seed1-like", "defaults")
# Settings of the fit: the published objective at a few lengths, and what a user gets without any setting.
LENGTHS = (10, 15, 25, 50, 100, 200)
VISIT_STEPS = (100, 400)  # of 128 cells, scvi-tools' own size: their difference is the cost of a cell visit


class Side:
    """Runs tasks of one side, each in a fresh process of its own interpreter."""

    def __init__(self, python: str, script: str) -> None:
        self.python, self.script = python, str(HERE / script)

    def __call__(self, task: str, **arguments: object) -> dict:
        line = [self.python, self.script, task, json.dumps(arguments, default=str)]
        done = subprocess.run(line, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
        if done.returncode:
            raise SystemExit(f"{task} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def table(title: str, header: list[str], rows: list[list[object]]) -> str:
    """A markdown table, printed and returned."""
    lines = [f"\n### {title}\n", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(shown(v) for v in row) + " |" for row in rows]
    text = "\n".join(lines)
    print(text, flush=True)
    return text


def shown(value: object) -> str:
    """A number with three digits that matter."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def time_to_target(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """CPU seconds to the held-out -ELBO that scvi-tools reaches; scvi-tools judges both."""
    cells, held_out = work / "query-3000.h5ad", work / "held-out-3000.h5ad"
    speed_cells.write("query", 3000, 0, cells)
    speed_cells.write("query", 3000, 1, held_out)
    results = {}
    for name in REFERENCES:
        reference, pairs = work / name, []
        for seed in range(repeats):
            peer = theirs("practice", reference=reference, cells=cells, held_out=held_out, seed=seed)
            common = {"seed": seed, "device": "cpu", "force": True, "patience": 99}
            configs = {f"elbo-{n}": common | {"objective": "elbo", "batch_size": 64, "max_steps": n} for n in LENGTHS}
            for n in VISIT_STEPS:
                configs[f"visits-{n}"] = common | {"objective": "elbo", "max_steps": n}
            configs["nothing"] = {"epochs": 0}
            configs["default"] = {"seed": seed, "device": "cpu", "force": True}
            configs["default-elbo"] = configs["default"] | {"objective": "elbo"}
            mine = {}
            for key, config in configs.items():  # a fresh process for each, as a user's is
                mine |= ours(
                    "fit", reference=reference, cells=cells, configs={key: config}, out=work / f"{name}-{seed}"
                )
            judged = theirs(
                "judge", reference=reference, held_out=held_out, columns={k: v["file"] for k, v in mine.items()}
            )
            pairs.append({"peer": peer, "ours": {k: mine[k] | judged[k] for k in mine}})
            print(f"{name}, seed {seed}: scvi-tools {peer['cpu']:.1f} s, {peer['curve'][-1]['elbo']:.3f}", flush=True)
        results[name] = pairs
        report_target(name, pairs)
    return results


def report_target(name: str, pairs: list[dict]) -> None:
    """The table of one reference."""
    rows = []
    last = [p["peer"]["curve"][-1] for p in pairs]
    best = [min(p["peer"]["curve"], key=lambda c: c["elbo"]) for p in pairs]
    cpu = median(p["peer"]["cpu"] for p in pairs)
    target, best_target = median(c["elbo"] for c in last), median(c["elbo"] for c in best)
    reached = {}
    for label, seconds, points in [
        ("scvi-tools, 100 epochs", cpu, last),
        ("scvi-tools, its best epoch", median(c["cpu"] for c in best), best),
    ]:
        rows.append([label, seconds, *judged(points), "1"])
    if "without_batch_norm" in pairs[0]["peer"]:
        points = [p["peer"]["without_batch_norm"] for p in pairs]
        rows.append(["scvi-tools, 100 epochs, its new columns alone", "", *judged(points), ""])
    for key in pairs[0]["ours"]:
        if key.startswith("visits"):
            continue
        runs = [p["ours"][key] for p in pairs]
        seconds = median(r["cpu"] for r in runs)
        worst = max(r["elbo"] - c["elbo"] for r, c in zip(runs, last, strict=True))
        worst_best = max(r["elbo"] - c["elbo"] for r, c in zip(runs, best, strict=True))
        if worst <= 0.05:
            reached.setdefault("100 epochs", (key, cpu / seconds))
        if worst_best <= 0.05:
            reached.setdefault("best epoch", (key, median(c["cpu"] for c in best) / seconds))
        label = f"scgraft, {key} ({runs[0]['steps']} steps)"
        rows.append([label, seconds, *judged(runs), f"{cpu / seconds:.0f}x"])
    title = (
        f"Time to the held-out -ELBO, reference `{name}`, 3,000 query cells (targets {target:.2f}, {best_target:.2f})"
    )
    table(title, ["fit", "CPU s", "-ELBO", "reconstruction", "accuracy", "mixing", "CPU ratio"], rows)
    few, many = (median(p["ours"][f"visits-{n}"]["cpu"] for p in pairs) for n in VISIT_STEPS)
    mine = (many - few) / ((VISIT_STEPS[1] - VISIT_STEPS[0]) * 128)
    theirs = cpu / (100 * 0.9 * 3000)  # it keeps a tenth for validation
    print(
        f"\nA cell visit in mini-batches of 128: scvi-tools {theirs * 1e6:.0f} us, scgraft {mine * 1e6:.0f} us "
        f"({theirs / mine:.1f} times less)."
    )
    for goal, (key, ratio) in reached.items():
        print(f"\nWithin 0.05 nats of scvi-tools' {goal} for every seed: {key}, {ratio:.0f} times fewer CPU seconds.")


def judged(points: list[dict]) -> list[str]:
    """Medians of what scvi-tools and the labels say of the held-out cells."""
    kinds = (("elbo", ".2f"), ("reconstruction", ".2f"), ("accuracy", ".3f"), ("mixing", ".2f"))
    return [f"{median(p[key] for p in points):{digits}}" for key, digits in kinds]


def embedding(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """Cells per CPU second, alternated."""
    cells, results = work / "query-20000.h5ad", {}
    speed_cells.write("query", 20_000, 2, cells)
    rows = []
    for name in REFERENCES:
        reference, pairs = work / name, []
        for _ in range(repeats):
            columns = work / f"{name}-embed.npz"
            peer = theirs("embed", reference=reference, cells=cells, out=columns)
            mine = ours("embed", reference=reference, cells=cells, columns=columns, latent=columns.with_suffix(".npy"))
            pairs.append({"peer": peer, "ours": mine})
        results[name] = pairs
        for key, ours_key in (("default", "first"), ("batch_size=1024", "warm")):  # scvi-tools' second run is warm
            rate = median(p["ours"][ours_key] for p in pairs)
            peer_rate = median(p["peer"][key] for p in pairs)
            difference = max(p["ours"]["difference"] for p in pairs)
            rows.append([name, key, peer_rate, rate, f"{rate / peer_rate:.1f}x", f"{difference:.1e}"])
    table(
        "Embedding 20,000 cells, cells per CPU second",
        ["reference", "scvi-tools", "its rate", "scgraft", "ratio", "largest relative difference"],
        rows,
    )
    return results


# The first does what scvi-tools' job does; the others also calibrate, look for novel cells, place the query on a map and
# write the report, with the reference's own part (calibration, map) kept from before or made now.
COMMANDS = {
    "labels": ["--no-calibration", "--no-report"],
    "everything, reference known": [],
    "everything, first time": [],
}


def whole_command(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """Process start to written labels, 20,000 cells."""
    cells, results, rows = work / "query-20000.h5ad", {}, []
    speed_cells.write("query", 20_000, 2, cells)
    for name in REFERENCES:
        reference, pairs = work / name, []
        for _ in range(repeats):
            peer = theirs("command", reference=reference, cells=cells, out=work / "peer.csv", epochs=4)
            mine = {}
            with tempfile.TemporaryDirectory() as cache:
                for key in reversed(COMMANDS):
                    mine[key] = ours(
                        "command",
                        reference=reference,
                        cells=cells,
                        out=work / "mapped",
                        options=COMMANDS[key],
                        cache=cache,
                    )
            pairs.append({"peer": peer, "ours": mine})
        results[name] = pairs
        peer_cpu = median(p["peer"]["extrapolated_100"] for p in pairs)
        untrained = median(p["peer"]["cpu"] - p["peer"]["training"] for p in pairs)
        peer_memory = median(p["peer"]["memory_mb"] for p in pairs)
        rows.append([name, "scvi-tools and scArches' weighted kNN", peer_cpu, "", "", peer_memory])
        rows.append([name, "the same without training", untrained, "", "", ""])
        for key in COMMANDS:
            cpu, wall, memory = (median(p["ours"][key][k] for p in pairs) for k in ("cpu", "wall", "memory_mb"))
            rows.append([name, f"scgraft map, {key}", cpu, wall, f"{peer_cpu / cpu:.0f}x", memory])
    table(
        "The whole command, 20,000 cells (scvi-tools: 4 epochs measured, 100 extrapolated from the steady epochs)",
        ["reference", "job", "CPU s", "wall s", "ratio", "peak MB"],
        rows,
    )
    return results


def scaling(ours: Side, theirs: Side, work: Path, repeats: int) -> list[dict]:
    """5k to 320k cells: where the CPU seconds and the memory go."""
    results = []
    for n in (5000, 20_000, 80_000, 320_000):
        cells = work / f"query-{n}.h5ad"
        speed_cells.write("query", n, 2, cells)
        results.append(ours("scaling", reference=work / REFERENCES[0], cells=cells))
    keys = ["cells", "fit_cells", "read", "align", "fit", "embed", "transfer", "memory_mb"]
    table("Cost as the work grows (CPU seconds of each step, peak MB)", keys, [[r[k] for k in keys] for r in results])
    first, last = results[1], results[-1]
    grown = (last["memory_mb"] - first["memory_mb"]) / (last["cells"] - first["cells"]) * 1e6
    print(
        f"\nPeak memory grows by {grown:,.0f} bytes per cell; the counts of a cell are about 10 % of 3,000 x 8 bytes."
    )
    plot_scaling(results, HERE.parent / "docs" / "scaling.svg")
    return results


def plot_scaling(results: list[dict], path: Path) -> None:
    """Picture of the cost against the number of cells, both logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scgraft"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    x = [r["cells"] for r in results]
    for key in ("read", "align", "fit", "embed", "transfer"):
        axis.loglog(x, [r[key] for r in results], marker="o", label=key)
    axis.set(xlabel="query cells", ylabel="CPU seconds, one thread", xticks=x)
    axis.set_xticklabels([f"{n // 1000}k" for n in x])
    axis.minorticks_off()
    axis.legend(frameon=False, ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def neighbours(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """Exact neighbours, 100,000 x 20,000 points in 20 dimensions, against faiss' exact index."""
    line = [sys.executable, str(HERE / "speed_neighbours.py")]
    pairs = []
    for _ in range(repeats):
        pair = {}
        for which in ("faiss", "scgraft"):
            done = subprocess.run(
                [*line, which], capture_output=True, text=True, env=os.environ | ENVIRONMENT, check=True
            )
            pair[which] = json.loads(done.stdout.splitlines()[-1])
        pairs.append(pair)
    rows = [
        [k, median(p[k]["cpu"] for p in pairs), median(p[k]["wall"] for p in pairs), pairs[0][k]["checksum"]]
        for k in ("faiss", "scgraft")
    ]
    table(
        "15 nearest of 100,000 points for 20,000 queries, 20 dimensions",
        ["", "CPU s", "wall s", "sum of distances"],
        rows,
    )
    print(f"\nRatio to faiss: {rows[1][1] / rows[0][1]:.2f}")
    return {"pairs": pairs}


def real(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """The hub pairs of real cells: accuracy and mixing beside the cost, with the row that does nothing."""
    import real_pairs

    return real_pairs.measure(ours, theirs, work, table)


def subsample(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """How many cells of a new batch its columns need: generated cells judged by scvi-tools, real ones by their labels."""
    import real_pairs

    cells, held_out, reference = work / "query-20000.h5ad", work / "held-out-3000.h5ad", work / REFERENCES[0]
    speed_cells.write("query", 20_000, 2, cells)
    speed_cells.write("query", 3000, 1, held_out)
    sizes = (100, 300, 1000, 3000, None)
    common = {"objective": "elbo", "device": "cpu"}
    configs = {str(n or "all"): common | {"fit_cells": n} for n in sizes}
    mine = ours("fit", reference=reference, cells=cells, configs=configs, out=work / "subsample")
    judged = theirs("judge", reference=reference, held_out=held_out, columns={k: v["file"] for k, v in mine.items()})
    rows = [[k, mine[k]["cpu"], mine[k]["steps"], f"{judged[k]['elbo']:.2f}"] for k in mine]
    table(
        "Cells of each new batch that the fit uses: generated cells, 10,000 a batch",
        ["cells", "CPU s", "steps", "-ELBO"],
        rows,
    )
    return {"generated": {k: mine[k] | judged[k] for k in mine}, "real": real_pairs.subsample(ours, work, table)}


def slow(ours: Side, theirs: Side, work: Path, repeats: int) -> dict:
    """Cost of a cell visit under every option of the model, relative to the plain negative binomial."""
    import slow_configurations

    return slow_configurations.measure(table)


PARTS = {
    "target": time_to_target, "embed": embedding, "command": whole_command, "scaling": scaling,
    "neighbours": neighbours, "real": real, "subsample": subsample, "slow": slow,
}  # fmt: skip


def main() -> None:
    """Make what is missing, run the parts, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scvi", default=os.environ.get("SCGRAFT_ORACLE"), help="interpreter that has scvi-tools 1.4.2"
    )
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "scgraft-benchmarks")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if not given.scvi:
        parser.error("name an interpreter that has scvi-tools: --scvi PYTHON, or `make benchmarks` makes one")
    given.work.mkdir(parents=True, exist_ok=True)
    ours, theirs = Side(sys.executable, "speed_scgraft.py"), Side(given.scvi, "speed_scvi.py")
    cells = given.work / "reference.h5ad"
    speed_cells.write("reference", 10_000, 0, cells)
    for name in REFERENCES:
        if not (given.work / name / "_scvi_required_metadata.json").exists():
            print(f"training {name} with scvi-tools ...", flush=True)
            theirs("train", kind=name, cells=cells, out=given.work / name, epochs=30)
    kept = given.work / "speed.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for part in given.only:
        results[part] = PARTS[part](ours, theirs, given.work, given.repeats)
        kept.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

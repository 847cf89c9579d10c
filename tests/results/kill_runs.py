"""Runs of ``scgraft map --memory`` that are killed at random moments: ``python kill_runs.py FOLDER KILLS SEED``.

Everything is imported once; each run is a fork of this process, and is ended with SIGKILL: a third of them while they learn, a
third after a random part, a third while the parts are put together. The same command then runs to its end. Prints one line of JSON.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path


def command(folder: Path, out: Path) -> list[str]:
    line = ["-q", "map", folder / "query.h5ad", "--reference", folder / "reference", "--batch-key", "batch"]
    return [str(a) for a in (*line, "--out", out, "--memory", "1K", "--no-report", "--epochs", "1")]


def start(folder: Path, out: Path) -> int:
    """The command in a process of its own: its number."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        from scgraft.cli.main import main

        with open(folder / "log", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                code = main(command(folder, out), standalone_mode=False) or 0
            except SystemExit as end:
                code = int(end.code or 0)
            except Exception:  # noqa: BLE001 (the parent reads what failed in the log)
                traceback.print_exc()
    finally:  # nothing of the parent's is run at the end of the fork
        os._exit(code)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def timed(folder: Path, out: Path) -> dict[str, float]:
    """Seconds that an undisturbed run takes to learn, and to put its parts together."""
    work, begin, seen = out.with_name(f"{out.name}.parts"), time.monotonic(), {}
    child = start(folder, out)
    while not out.exists():
        for name, path in (("learn", work / "frozen"), ("parts", work / "parts.json")):
            if name not in seen and path.exists():
                seen[name] = time.monotonic()
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.002)
    end = time.monotonic()
    assert finish(child) == 0, "the undisturbed run failed"
    return {"learn": seen["learn"] - begin, "map and gather": end - seen["parts"]}


def killed(folder: Path, out: Path, after: Path | None, seconds: float) -> int:
    """Exit status of a run that is killed so many seconds after a file is there (or after its start); -9 where it was in time."""
    child, begin = start(folder, out), None if after else time.monotonic()
    while begin is None or time.monotonic() < begin + seconds:
        if begin is None and after.exists():
            begin = time.monotonic()
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return finish(child)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return finish(child)


def state(out: Path) -> str:
    """How far a killed run came."""
    work = out.with_name(f"{out.name}.parts")
    if out.exists():
        return "put together, not yet tidied up" if work.exists() else "done"
    if not (work / "frozen").exists():
        return "learning"
    return f"{len(json.loads((work / 'parts.json').read_text())) if (work / 'parts.json').exists() else 0} parts"


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    from scgraft.mapping import freeze, map, stream

    freeze.CELLS = 20
    map.SAMPLE = stream.SAMPLE = 60
    times = timed(folder, folder / "undisturbed")
    rng, seen = random.Random(seed), []
    for i in range(kills):
        out = folder / f"out {i}"
        work = out.with_name(f"{out.name}.parts")
        if i % 3 == 0:
            code = killed(folder, out, None, rng.uniform(0, 0.7 * times["learn"]))
        elif i % 3 == 1:
            code = killed(folder, out, work / f"{rng.randrange(11):05d}.npz", rng.uniform(0, 0.01))
        else:
            code = killed(folder, out, work / "00011.npz", rng.uniform(0, 0.5 * times["map and gather"]))
        seen.append([code, state(out)])
        if not out.exists():
            assert finish(start(folder, out)) == 0, f"the run after the kill failed: {seen[-1]}"
    print(json.dumps({"times": times, "seen": seen}))


if __name__ == "__main__":
    main()

"""The readers in Python under a fuzzer that is guided by what they reach, where atheris is installed (extra ``fuzz``).

As many runs each time by default, from the same seed; ``SCGRAFT_FUZZ_SECONDS`` and ``SCGRAFT_FUZZ_SEED`` as for the others.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fuzz.mutate import CALIBRATION

pytest.importorskip("atheris", reason="atheris is not installed (pip install scgraft[fuzz])")
SECONDS = float(os.environ.get("SCGRAFT_FUZZ_SECONDS", 0))
SEED = int(os.environ.get("SCGRAFT_FUZZ_SEED", 0)) + 1  # of libFuzzer 0 is none
RUNS = 3000
TARGETS = ("pickle", "summary", "card", "npz")


def sound_bytes(sound, target):
    if target == "pickle":
        with zipfile.ZipFile(sound / "minified" / "model.pt") as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    places = {"summary": "report/summary.json", "card": "minified/README.md", "npz": f"calibration/{CALIBRATION}"}
    return (sound / places[target]).read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_is_reached_is_named(sound, tmp_path, target):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "sound").write_bytes(sound_bytes(sound, target))
    long = f"-max_total_time={int(SECONDS / len(TARGETS)) + 1}" if SECONDS else f"-runs={RUNS}"
    line = [sys.executable, str(Path(__file__).with_name("guided.py")), target, long, f"-seed={SEED}"]
    line += ["-timeout=60", "-rss_limit_mb=2000", f"-artifact_prefix={tmp_path}/", "-print_final_stats=1", str(corpus)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, errors="replace")
    print(target, *[text for text in done.stderr.splitlines() if "number_of_executed_units" in text])
    assert done.returncode == 0, f"kept in {tmp_path}\n" + (done.stdout + done.stderr)[-4000:]

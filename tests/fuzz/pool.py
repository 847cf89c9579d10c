"""A child process that reads files on demand; ended after ten seconds of the processor with one file, and started again."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0  # the bound for one file: of the processor, so that it is the file's and not the machine's
PATIENCE = 30  # times as long, on a machine that does other things
START = 300.0  # imports on such a machine


LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Outcome:
    """What came of one file: "fine", "different" (read, but not as the sound one), "named", "raw", "hang" or "crash"."""

    kind: str
    error: str = ""
    outside: tuple[str, ...] = ()
    memory: int = 0  # bytes


class Reader:
    """`sound` maps a reader of `worker` to a file that it reads well; `secret` is a folder that must stay closed."""

    def __init__(self, sound: dict[str, Path], secret: Path) -> None:
        self.sound, self.secret = sound, secret
        self.expected: dict[str, str] = {}
        self._start()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _start(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        self._child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self._say({"sound": [(k, str(v)) for k, v in self.sound.items()], "secret": str(self.secret)})
        assert self._hear(START) == {"ready": True}, "the child process did not start"
        for reader, path in self.sound.items():
            answer = self.ask(reader, path)
            assert answer["outcome"] == "fine", (reader, answer)
            self.expected[reader] = str(answer["digest"])

    def _stop(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self, value: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(value).encode() + b"\n")
        self._child.stdin.flush()

    def _hear(self, seconds: float) -> dict[str, object] | None:
        assert self._child.stdout is not None
        line, end, used = b"", time.monotonic() + seconds * (PATIENCE if LINUX else 1), self._used()
        while not line.endswith(b"\n"):
            if not select.select([self._child.stdout], [], [], 1.0)[0]:
                if time.monotonic() > end or self._used() - used > seconds:
                    return {"outcome": "hang"}
                continue
            part = os.read(self._child.stdout.fileno(), 1 << 16)
            if not part:
                return {"outcome": "crash", "error": f"exit status {self._child.wait()}"}
            line += part
        return dict(json.loads(line))

    def _used(self) -> float:
        """Seconds of the processor that the child has taken (proc(5)); 0 where the system does not tell."""
        if not LINUX:
            return 0.0
        times = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    def ask(self, reader: str, path: Path) -> dict[str, object]:
        self._say({"reader": reader, "path": str(path)})
        return self._hear(SECONDS) or {}

    def read(self, reader: str, path: Path) -> Outcome:
        """What comes of a damaged file."""
        answer = self.ask(reader, path)
        kind = str(answer["outcome"])
        if kind in ("hang", "crash"):
            self._stop()
            self._start()
            return Outcome(kind, str(answer.get("error", "")))
        if kind == "fine" and answer["digest"] != self.expected[reader]:
            kind = "different"
        return Outcome(kind, str(answer["error"]), tuple(answer["outside"]), int(answer["memory"]))  # type: ignore[call-overload]

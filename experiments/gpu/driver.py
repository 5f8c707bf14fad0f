"""Runs the parts one after another in a process of their own, watches the clock, and keeps what is done.

Starting a process, JAX and CUDA takes seconds of few minutes: one worker does part after part, and another takes its
place only where it crashed or went past a part's limit. So such a part loses itself alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.gpu import packages
from experiments.gpu.parts import Part, table_of

from xbm_jax.storage.files import replace_json

__all__ = ["drive"]

_FOUND = ".parts"
"""Where, under the folder of results, the worker puts what a part found."""
_TOY_SLOWER = 20
"""A CPU compiles toys more slowly than an accelerator's machine compiles the rest."""


def drive(asked: Any, table: str = "experiments.gpu.parts") -> int:
    """Run what is not done yet, and say what came of it; 1 where something is still to do.

    Args:
        asked: the options of ``python -m experiments.gpu``.
        table: the module whose ``PARTS`` are run.
    """
    parts = [part for part in table_of(table) if part.as_toy or not asked.toy]
    record = _Record(asked, [part.name for part in parts])
    chosen = [part for part in parts if asked.only in part.name or part.always]
    wanted = []
    for part in chosen:
        lacking = [*packages.missing(part.packages), *_missing_files(part, asked)]
        if lacking:
            record.put(part.name, {"status": "missing", "missing": lacking})
        elif asked.again or part.always or not record.done(part.name):
            wanted.append(part)
    _work(wanted, asked, record, table)
    for part in chosen:
        print(record.line(part.name), flush=True)
    return int(any(not record.done(part.name) for part in chosen))


class _Record:
    """The results file; it is whole after every part."""

    def __init__(self, asked: Any, order: Sequence[str]) -> None:
        self.order = order
        self.path = asked.out / "gpu.json"
        self.size = "toy" if asked.toy else "full"
        self.content: dict[str, Any] = {"size": self.size, "context": None, "parts": {}}
        if self.path.is_file():
            earlier = json.loads(self.path.read_text(encoding="utf-8"))
            if earlier["size"] != self.size:
                sys.exit(f"gpu: --out {asked.out}: a new folder, its results are of the {earlier['size']} size")
            self.content = earlier

    def done(self, name: str) -> bool:
        """Whether a part was measured and found right."""
        return self.content["parts"].get(name, {}).get("status") == "done"

    def put(self, name: str, found: Mapping[str, Any]) -> None:
        """Keep what came of a part; what an earlier run measured is not given up for a failure."""
        if self.done(name) and found["status"] != "done":
            return
        if name == "machine" and "found" in found:
            self._same_machine(found["found"])
            self.content["context"] = found["found"]
            found = {**found, "found": {}}
        self.content["parts"][name] = dict(found)
        self.content["parts"] = {n: self.content["parts"][n] for n in self.order if n in self.content["parts"]}
        replace_json(self.path, self.content)

    def _same_machine(self, now: Mapping[str, Any]) -> None:
        """Results of two cards, or of two versions, do not stand side by side as if they were of one."""
        before = self.content["context"]
        names = [name for name in ("device", "versions") if before and before[name] != now[name]]
        if names:
            where = self.path.parent
            raise SystemExit(f"gpu: --out {where}: a new folder, its results are of other {', '.join(names)}")

    def line(self, name: str) -> str:
        """A part in a line."""
        found = self.content["parts"].get(name, {"status": "not run"})
        said = found.get("found") or found.get("missing") or found.get("error", "")
        shown = json.dumps(said) if not isinstance(said, str) else said.strip().splitlines()[-1:]
        return f"{name:58s} {found['status']:9s} {shown or ''}"


def _missing_files(part: Part, asked: Any) -> list[str]:
    if asked.toy or not part.files:
        return []
    if asked.data is None:
        return [f"--data: a folder with {', '.join(part.files)}"]
    return [f"file {asked.data / name}" for name in part.files if not (asked.data / name).is_file()]


def _work(parts: Sequence[Part], asked: Any, record: _Record, table: str) -> None:
    """Workers, each for the parts that the one before it left."""
    end = time.monotonic() + asked.budget
    waiting = list(parts)
    while waiting:
        if end - time.monotonic() < waiting[0].least_seconds:
            record.put(waiting[0].name, {"status": "no time", "left_seconds": round(end - time.monotonic(), 1)})
            waiting.pop(0)
            continue
        waiting = _one_worker(waiting, asked, record, end, table)


def _one_worker(parts: Sequence[Part], asked: Any, record: _Record, end: float, table: str) -> list[Part]:
    """Run one worker as far as it comes; the parts that are left."""
    folder = asked.out / _FOUND
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        (folder / f"{part.key}.json").unlink(missing_ok=True)
    log = asked.out / "log.txt"
    with log.open("ab") as output:
        began = output.tell()
        worker = _started(parts, asked, end, output, table)
        try:
            for i, part in enumerate(parts):
                limit = min(time.monotonic() + part.limit_seconds * (_TOY_SLOWER if asked.toy else 1), end)
                found = _awaited(folder / f"{part.key}.json", worker, limit)
                if found is None:
                    gone = worker.poll()
                    why = "past its limit" if gone is None else f"the worker ended with {gone}"
                    record.put(part.name, {"status": "failed", "error": f"{_tail(log, began)}\n{why}"})
                    return list(parts[i + 1 :])
                record.put(part.name, found)
                if part.name == "machine" and found["status"] != "done":
                    return []  # no accelerator, or none that JAX can use: nothing else is worth its time
                if found["status"] == "no time":
                    return list(parts[i + 1 :])
        finally:
            _ended(worker)
    return []


def _started(parts: Sequence[Part], asked: Any, end: float, output: Any, table: str) -> subprocess.Popen[bytes]:
    work = {
        "table": table,
        "parts": [part.name for part in parts],
        "folder": str(asked.out / _FOUND),
        "out": str(asked.out),
        "data": None if asked.data is None else str(asked.data),
        "toy": asked.toy,
        "seconds": end - time.monotonic(),
    }
    own = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "JAX_COMPILATION_CACHE_DIR": str((asked.out / ".cache").resolve()),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the tests are processes of their own
    }
    command = [sys.executable, "-m", "experiments.gpu.worker", json.dumps(work)]
    kept = {name: value for name, value in own.items() if name == "PYTHONPATH" or name not in os.environ}
    environment = os.environ | kept
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def _awaited(path: Path, worker: subprocess.Popen[bytes], limit: float) -> dict[str, Any] | None:
    """What the worker wrote for a part; ``None`` where it ended without, or the time is over."""
    while not path.is_file():
        if worker.poll() is not None or time.monotonic() > limit:
            time.sleep(0.05)  # it may have been written between the two looks
            if not path.is_file():
                return None
        time.sleep(0.05)
    return json.loads(path.read_text(encoding="utf-8"))


def _ended(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and what it started: they are a session of their own."""
    try:
        worker.wait(timeout=2)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _tail(log: Path, began: int, size: int = 1500) -> str:
    with log.open("rb") as file:
        file.seek(began)
        return file.read()[-size:].decode(errors="replace")

"""What an experiment carries on from: results files and, saved as they go on, trainings that have no record yet.

A results file holds a record a line, with the settings under which the records count; trainings are in `<out>/.runs`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.storage.files import replace_file
from xbm_jax.training import Run, asked_digest, forget

_LEARNED: list[Path] = []
"""Where this process has learned what is in no results file yet."""


def adapt(
    out: Path, chip: xbm.Chip, data: xbm.Dataset, *, method: xbm.Method, key: jax.Array, **options: Any
) -> xbm.Task:
    """`xbm.adapt`, carried on where this very training was cut short in the same `out`; forgotten with its record."""
    shown = {name: options.get(name) for name in ("start", "chip_of_step")}
    run = Run(chip, data, method, options.get("config") or xbm.Recipe(), key, **shown)
    return xbm.adapt(chip, data, method=method, key=key, save=_place(out, [run]), **options)


def adapt_together(
    out: Path,
    chips: Sequence[xbm.Chip],
    data: Sequence[xbm.Dataset],
    *,
    method: xbm.Method,
    keys: Sequence[jax.Array],
    config: xbm.Recipe,
) -> list[xbm.Task]:
    """`xbm.adapt_together`, likewise."""
    runs = [Run(chip, own, method, config, key) for chip, own, key in zip(chips, data, keys, strict=True)]
    return xbm.adapt_together(chips, data, method=method, keys=keys, config=config, save=_place(out, runs))


@contextmanager
def command(name: str) -> Iterator[None]:
    """What an experiment runs in: its errors are one line, and a signal that stops it has its training saved first."""
    try:
        with xbm.training.interruptible():
            yield
    except xbm.XbmError as error:
        sys.exit(f"{name}: {error}")
    except xbm.Interrupted as stopped:
        print(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)


def forget_learned() -> None:
    """Forget the trainings whose records are written now."""
    while _LEARNED:
        folder = _LEARNED.pop()
        forget(folder)
        with suppress(OSError):  # raised where others are in it
            folder.parent.rmdir()


def _place(out: Path, runs: Sequence[Run]) -> Path:
    """The folder of a training: its name is what it is asked, so that no other one is found there."""
    name = hashlib.sha256(" ".join(map(asked_digest, runs)).encode()).hexdigest()[:16]
    _LEARNED.append(out / ".runs" / name)
    return _LEARNED[-1]


def check_same(out: Path, recorded: Mapping[str, Any], kept: Mapping[str, Any], what: str) -> None:
    """Raise OutputError if records were made with settings other than ``kept``; both as a run's context has them.

    A field that is ``None`` is as good as none: records from before it was there count on.
    """
    now = report.run_context(kept, 0)["config"]
    differing = [name for name, value in now.items() if _given(recorded.get(name)) != _given(value)]
    if differing:
        raise xbm.OutputError("--out", str(out), f"a new folder: its {what} have other {', '.join(differing)}")


def _given(value: Any) -> Any:
    """JSON values without fields that are null."""
    if isinstance(value, dict):
        return {name: _given(item) for name, item in value.items() if item is not None}
    return [_given(item) for item in value] if isinstance(value, list) else value


def read_records(path: Path, kept: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """The records under ``what`` of an earlier run of the same settings; none if there was no run."""
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    check_same(path.parent, content["context"]["config"], kept, what)
    return content[what]


def write_records(path: Path, context: Mapping[str, Any], records: Iterable[Mapping[str, Any]], what: str) -> None:
    """Replace the file in one step, a record a line, and forget the trainings that they are of."""
    lines = ",\n  ".join(json.dumps(record) for record in records)
    replace_file(path, f'{{\n "context": {json.dumps(context, indent=1)},\n "{what}": [\n  {lines}\n ]\n}}\n')
    forget_learned()

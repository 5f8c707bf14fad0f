"""Results files that a run carries on from: a record a line, and the settings under which the records count."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.storage.files import replace_file


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
    """Replace the file in one step, a record a line."""
    lines = ",\n  ".join(json.dumps(record) for record in records)
    replace_file(path, f'{{\n "context": {json.dumps(context, indent=1)},\n "{what}": [\n  {lines}\n ]\n}}\n')

"""What a run is asked, as JSON: runs that are asked the same end the same, bit for bit, and may share a save."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from xbm_jax.errors import OutputError
from xbm_jax.storage.plain import differences, plain
from xbm_jax.storage.trees import digest
from xbm_jax.streams import checked_key
from xbm_jax.tasks import Task, chip_mark
from xbm_jax.training.run import Run

__all__ = ["asked", "asked_digest", "check_asked"]

_NAMED = 3
_SHORT = 60
_DIGEST = re.compile(r"[0-9a-f]{64}")


def asked(run: Run) -> dict[str, Any]:
    """Digests of chip, data and start; method, recipe, key and ``chip_of_step`` in words.

    A chip is its cells, how it was calibrated, its design, and all that a read depends on (its age, say). Functions are
    told apart by their names alone.
    """
    data, key, mark = run.data, checked_key(run.key), chip_mark(run.chip)
    examples = (data.x_train, data.y_train, data.x_test, data.y_test, data.groups)
    assert mark is not None  # nothing is traced here
    return {
        "chip": {
            "cells": mark.identity,
            "calibration": mark.calibration,
            "design": mark.design,
            "as read": digest(run.chip),
        },
        "data": {"name": data.name, "kind": data.kind, "classes": list(data.class_names), "examples": digest(examples)},
        "method": plain(run.method),
        "recipe": plain(run.recipe),
        "key": {"kind": str(jax.random.key_impl(key)), "words": np.asarray(jax.random.key_data(key)).tolist()},
        "start": _start(run.start),
        "chip_of_step": plain(run.chip_of_step),
    }


def asked_digest(run: Run) -> str:
    """SHA-256 of what a run is asked: a name for its folder."""
    return hashlib.sha256(json.dumps(asked(run), sort_keys=True).encode()).hexdigest()


def check_asked(folder: Path, saved: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> None:
    """Raise unless what is saved in a folder was asked the same.

    Raises:
        OutputError: it was not; names what differs.
    """
    found = differences(list(now), list(saved))
    if len(saved) != len(now):
        raise OutputError("save", str(folder), f"a new folder: the run in it has {len(saved)} tasks, not {len(now)}")
    if not found:
        return
    said = []
    for path, ours, theirs in found[:_NAMED]:
        place = path if len(now) > 1 else path.partition("].")[2]
        said.append(f"{place} {_short(theirs)}, not {_short(ours)}")
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise OutputError("save", str(folder), f"a new folder: the run in it has {'; '.join(said)}{rest}")


def _start(start: Task | None) -> dict[str, Any] | None:
    if start is None:
        return None
    return {"method": plain(start.method), "values": digest((start.trained, start.state))}


def _short(value: Any) -> str:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:12]
    text = json.dumps(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."

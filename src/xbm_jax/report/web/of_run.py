"""What the folder of a saved run knows: learning curves of its log, what was asked, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xbm_jax.report.web.found import Curve, Found
from xbm_jax.report.web.of_bank import safely
from xbm_jax.report.web.tables import number
from xbm_jax.training import read_log
from xbm_jax.training.log import PLACES, learned_by, learns_of
from xbm_jax.training.saved import told

__all__ = ["curves_of_log", "of_run"]


def of_run(folder: Path) -> Found:
    """What a saved run says, also while it goes on.

    Raises:
        BankError: no log there, or a damaged save.
    """
    log, said, notes = read_log(folder), told(folder), []
    metas = (said or {}).get("metas")
    name = learned_by(log) or folder.name
    rows = [_measured(meta) for meta in metas or []] or _so_far(log, learns_of(log))
    if not metas:
        notes.append("The run is not finished: what is shown is as far as it got.")
    else:
        notes.append("Masks are shown by layer; column by column a bank has them, and its report.")
    named = {f"{meta.get('task')} {meta.get('method')}": meta for meta in metas or []}
    shares = {
        part: {n: dict(meta.get(part) or {}) for n, meta in named.items()}
        for part in ("active_columns", "adc_clip_rate")
    }
    begun = next((row for row in log if row.get("kind") == "begin"), {})
    context = {key: begun[key] for key in ("jax", "platform") if key in begun} | {"config": (said or {}).get("asked")}
    return Found(
        f"Run {name}",
        rows,
        safely(notes, "log", lambda: curves_of_log(name, log)) or [],
        clips=shares["adc_clip_rate"],
        active=shares["active_columns"],
        context=context,
        notes=notes,
    )


def curves_of_log(name: str, log: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """A curve for each number of a log's lines: of steps, rates by group, of epochs; of several tasks for each."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}

    def add(panel: str, line: str, axis: str, x: Any, row: Mapping[str, Any]) -> None:
        for key, value in row.items():
            if key not in PLACES and number(value) is not None:
                quantity = key.replace("_", " ") if panel != "rates" else "rates"
                found.setdefault((f"{name}: {quantity}", line or key, axis), []).append((x, value))

    for row in log:
        if row.get("kind") == "step":
            add("", "each step", "step", row["step"], row)
            add("rates", "", "step", row["step"], row.get("rates") or {})
        elif row.get("kind") == "epoch":
            add("", "mean", "epoch", row["epoch"] + 1, {} if row.get("each") else row)
            for own in row.get("each") or []:
                add("", str(own.get("task")), "epoch", row["epoch"] + 1, own)
    return [Curve(panel, line, axis, points) for (panel, line, axis), points in found.items()]


def _measured(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if isinstance(value, str) or number(value) is not None}


def _so_far(log: Sequence[Mapping[str, Any]], learns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task from the newest epoch."""
    last = next((row for row in reversed(log) if row.get("kind") == "epoch"), {})
    each = last.get("each") or [last] * len(learns or [None])
    rows = []
    for own, numbers in zip(learns or [{}] * len(each), each, strict=False):
        rows.append(
            {**own, **{k: v for k, v in numbers.items() if k not in ("kind", "each")}, "epoch": last.get("epoch")}
        )
    return rows

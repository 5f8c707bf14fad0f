"""The benchmarks' bookkeeping; what they measure is no test."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.run import HERE, ROWS, Row, _measured
from benchmarks.timing import interleaved


def test_the_committed_rows_are_those_of_the_code() -> None:
    rows = json.loads((HERE / "latest.json").read_text(encoding="utf-8"))
    assert [(row["work"], row["goal"], row["peer"]) for row in rows] == [(r.work, r.goal, r.peer) for r in ROWS]
    for row in rows:
        value = next(row[kind] for kind in ("ratio", "seconds", "gib") if row.get(kind) is not None)
        assert row["met"] == (round(value, 2) <= row["goal"])
        assert row["machine"]["cpus"] and row["versions"]["jax"]


@pytest.mark.parametrize(
    ("found", "met"),
    [({"ratio": 1.2}, True), ({"ratio": 1.21}, False), ({"seconds": 1.1}, True), ({"gib": 3.0}, False)],
)
def test_a_row_is_met_by_its_goal(found: dict[str, float], met: bool) -> None:
    row: dict[str, Any] = _measured(Row("work", 1.2, None, lambda: found))
    assert row["met"] is met and row["ratio"] == found.get("ratio")


def test_both_functions_are_called_equally_often_whatever_the_order() -> None:
    calls: list[str] = []
    found = interleaved(lambda: calls.append("ours"), lambda: calls.append("plain"), seconds=1e-6, rounds=3)
    assert calls.count("ours") == calls.count("plain") == 2 + 1 + 3
    assert found.ratio > 0 and found.plain_seconds > 0

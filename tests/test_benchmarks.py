"""The benchmarks' bookkeeping, on toys; what they measure is no test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from benchmarks import page, run, series, wait, waited
from benchmarks.growth import SERIES, Series
from benchmarks.machine import Watched
from benchmarks.programs import Program, product_flop, roofline
from benchmarks.rows import ROWS, Measured, Row
from benchmarks.timing import interleaved, spread

from xbm_jax.crossbar.primitives.products import Conv, product


@contextmanager
def _kept_setting() -> Iterator[None]:
    """A benchmark turns the cache of compiled programs off; other tests go on with it."""
    kept = jax.config.values["jax_enable_compilation_cache"]
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", kept)


# ---------------------------------------------------------------------------------------------------------------------
# Rounds


def test_both_functions_are_called_equally_often_whatever_the_order() -> None:
    calls: list[str] = []
    found = interleaved(lambda: calls.append("ours"), lambda: calls.append("plain"), seconds=1e-6, rounds=3)
    assert calls.count("ours") == calls.count("plain") == 2 + 1 + 3
    assert found.ratio > 0 and found.plain_seconds > 0 and len(found.rounds) == 3


@pytest.mark.parametrize(
    ("rounds", "expected", "wavers"),
    [
        ((1.0, 1.2, 0.9, 1.1, 1.0), (1.0, 0.9, 1.2, 1.1 / 1.05 - 1), False),
        ((1.0, 1.0, 1.0, 1.2, 1.2, 1.2), (1.1, 1.0, 1.2, 0.2), True),
        ((2.0, 2.0, 1.0, 1.0), (1.5, 1.0, 2.0, 1.0), True),
        ((3.0,), (3.0, 3.0, 3.0, 0.0), False),
        ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), False),
    ],
)
def test_rounds_are_their_median_their_range_and_how_far_their_halves_lie_apart(
    rounds: tuple[float, ...], expected: tuple[float, ...], wavers: bool
) -> None:
    found = spread(rounds)
    assert tuple(found) == pytest.approx(expected) and found.wavers is wavers


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def row(value: float, kind: str = "ratio", rounds: int = 6, goal: float = 1.2, **more: Any) -> dict[str, Any]:
    return run.measured(Row("work", goal, None, lambda: Measured(kind, [value] * rounds, **more)), Watched())


@pytest.mark.parametrize(
    ("kind", "value", "met"),
    [("ratio", 1.204, True), ("ratio", 1.21, False), ("seconds", 1.1, True), ("gib", 3.0, False)],
)
def test_a_row_is_met_by_its_median(kind: str, value: float, met: bool) -> None:
    found = row(value, kind)
    assert found["met"] is met and found[kind] == value and found["least"] == found["largest"] == value
    assert "roofline" not in found and page.remarks(found | {"quiet": True}) == ""
    assert "least" not in row(value, kind, rounds=1)


def test_a_row_says_where_it_is_weak() -> None:
    found = run.measured(Row("work", 1.0, None, lambda: Measured("ratio", [1, 1, 1, 2, 2, 2])), Watched())
    assert found["wavers"] and found["halves_apart"] == 1.0 and found["ratio"] == 1.5
    assert page.remarks(found | {"quiet": False}) == "wavers, not quiet"
    assert (page.value(found), page.span(found), page.apart(found)) == ("1.50", "1.00 to 2.00", "100%")


def test_a_row_that_misses_its_goal_has_a_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "roofline", lambda *given: {"given": given[2:]})
    programs: Any = (object(), object())
    missed = row(2.0, more={"ours_ms": 2.0, "plain_ms": 1.0}, programs=programs)
    assert missed["roofline"] == {"given": (0.002, 0.001)}
    assert "roofline" not in row(1.0, more={"ours_ms": 1.0, "plain_ms": 1.0}, programs=programs)


def test_rows_are_written_one_by_one_and_those_of_before_are_judged_by_the_goals_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (Row("a b", 1.0, None, lambda: Measured("ratio", [1.1] * 6)), Row("c", 1.0, None, lambda: 1 / 0))  # type: ignore
    monkeypatch.setattr(run, "ROWS", rows)
    out = tmp_path / "rows.json"
    old = {"work": "c", "ratio": 1.5, "goal": 2.0, "peer": None, "met": True}
    out.write_text(json.dumps([old, old | {"work": "a row that is no more"}]))
    with _kept_setting():
        run.main(run.Config(only="a b", out=out))
    found = json.loads(out.read_text())
    assert [(one["work"], one["ratio"], one["goal"], one["met"]) for one in found] == [
        ("a b", 1.1, 1.0, False),
        ("c", 1.5, 1.0, False),
    ]
    assert found[0]["machine"]["cpus"] and found[0]["versions"]["jax"] and found[0]["quiet"] in (True, False)
    with pytest.raises(SystemExit, match="no row's name contains that"):
        run.main(run.Config(only="none of them", out=out))


def test_the_committed_rows_are_those_of_the_code() -> None:
    rows, known = json.loads(run.OUT.read_text(encoding="utf-8")), {row.work: row for row in ROWS}
    assert len(known) == len(ROWS)
    works = [row["work"] for row in rows]
    assert works == [work for work in known if work in works]  # what is not measured yet is missing; the page says so
    for row in rows:
        code = known[row["work"]]
        assert (row["goal"], row["peer"]) == (code.goal, code.peer)
        assert row["met"] == (round(page.value_of(row), 2) <= row["goal"])
        assert row["machine"]["cpus"] and row["versions"]["jax"]


# ---------------------------------------------------------------------------------------------------------------------
# The machine


def test_a_machine_that_others_keep_busy_is_not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, busy, own = iter([0.1, 0.1, 2.6, 2.6, 2.6, 2.6]), iter([0.0, 9.0, 0.0, 3.0]), iter([(0.0,), (2.0,)] * 2)
    monkeypatch.setattr("benchmarks.machine._load", lambda: next(loads))
    monkeypatch.setattr("benchmarks.machine._busy_seconds", lambda: next(busy))
    monkeypatch.setattr("os.times", lambda: (*next(own), 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr("time.perf_counter", iter([0.0, 10.0, 0.0, 10.0]).__next__)
    assert Watched().seen() == {"load_before": 0.1, "load_after": 0.1, "others": 0.7, "quiet": False}
    assert Watched().seen() == {"load_before": 2.6, "load_after": 2.6, "others": 0.1, "quiet": False}


def test_where_no_file_says_so_the_load_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine._busy_seconds", lambda: None)
    monkeypatch.setattr("benchmarks.machine.machine", lambda: {"machine": {"cpus": 2}})
    for before, after, quiet in ((0.2, 2.4, True), (0.2, 2.6, False), (0.6, 1.0, False), (None, None, True)):
        loads = iter([before, after])
        monkeypatch.setattr("benchmarks.machine._load", lambda loads=loads: next(loads))
        assert Watched().seen()["quiet"] is quiet


# ---------------------------------------------------------------------------------------------------------------------
# Programs


def conv_flop(size: int, channels: int, features: int, batch: int) -> float:
    """Of a 3x3 convolution with padding, counted tap by tap."""
    pairs = sum(0 <= o + t - 1 < size for o in range(size) for t in range(3))
    return 2.0 * batch * channels * features * pairs**2


def looped(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda total, w: (total @ w, None), x, w)[0]


@pytest.mark.parametrize(
    ("function", "shapes", "flop", "loops"),
    [
        (jnp.matmul, ((3, 5), (5, 7)), 2.0 * 3 * 5 * 7, False),
        (jax.jit(lambda x, w: jnp.sum(x @ w)), ((3, 5), (5, 7)), 2.0 * 3 * 5 * 7, False),
        (looped, ((4, 4), (6, 4, 4)), 6 * 2.0 * 4**3, True),
        (lambda x, k: product(x, k, Conv(padding="SAME")), ((2, 5, 5, 3), (3, 3, 3, 4)), conv_flop(5, 3, 4, 2), False),
        (lambda x: x + 1, ((8,),), 0.0, False),
    ],
)
def test_products_are_counted_as_often_as_loops_go(
    function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], flop: float, loops: bool
) -> None:
    traced = jax.jit(function).trace(*(jnp.ones(shape) for shape in shapes))
    assert product_flop(traced.jaxpr.jaxpr) == (flop, loops)


def test_the_products_of_gradients_are_counted_without_the_zeros_between_and_around() -> None:
    """Of a convolution of stride 2: as many as of itself, for inputs and for kernels."""
    conv = Conv(strides=(2, 2), padding="SAME")
    x, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))

    def of(function: Any) -> float:
        return product_flop(jax.jit(function).trace(x, kernel).jaxpr.jaxpr)[0]

    forward = of(lambda x, k: product(x, k, conv))
    assert of(jax.grad(lambda x, k: jnp.sum(product(x, k, conv) ** 2), (0, 1))) == 3 * forward > 0


def test_a_program_is_called_and_counted_whether_it_was_compiled_or_not() -> None:
    function, x = jax.jit(lambda double, x: (2 if double else 1) * (x @ x), static_argnums=0), jnp.ones((8, 8))
    compiled = Program(function, True, x, static=1, compiled=function.lower(True, x).compile())
    for program in (Program(function, True, x, static=1), compiled):
        assert program()[0, 0] == 16.0
        assert program.counted().flop >= 2 * 8**3 and program.counted().held >= 2 * x.nbytes


def test_a_roofline_is_at_the_rates_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.programs.product_rate", lambda: 1e9)
    monkeypatch.setattr("benchmarks.programs.copy_rate", lambda held: 1e8)
    x, w = jnp.ones((4, 4)), jnp.ones((6, 4, 4))
    ours, plain = Program(jax.jit(looped), x, w), Program(jax.jit(jnp.matmul), x, x)
    found = roofline(ours, plain, 2e-6, 1e-6)
    assert found["limit_by_products"] == round(6 * 2 * 4**3 / 1e9 / 1e-6, 3) and found["bytes_of_loops_once"]
    assert found["share_of_product_rate"] == round(6 * 2 * 4**3 / 2e-6 / 1e9, 3)
    assert found["plain_share_of_product_rate"] == pytest.approx(2 * 4**3 / 1e-6 / 1e9, rel=0.1)


# ---------------------------------------------------------------------------------------------------------------------
# Growth


def test_series_carry_on_point_by_point(tmp_path: Path) -> None:
    asked: list[int] = []

    def measure(x: int) -> dict[str, Any]:
        asked.append(x)
        return {"y": 2.0 * x, "plain": 1.0}

    toy = {"a": Series("things", (1, 2, 4), measure), "b": Series("others", (3,), measure)}
    config = series.Config(out=tmp_path / "s.json", figure=tmp_path / "s.png")
    with _kept_setting():
        series.main(config, toy)
        assert asked == [1, 2, 4, 3] and (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
        stored = json.loads((tmp_path / "s.json").read_text())
        stored["series"]["a"][1]["versions"] = {}
        stored["series"]["gone"] = [{"x": 1, "y": 1.0}]
        (tmp_path / "s.json").write_text(json.dumps(stored))
        series.main(config, toy)
        assert asked[4:] == [2]  # of other versions
        series.main(series.Config(only="b", again=True, out=config.out, figure=config.figure), toy)
        assert asked[5:] == [3]
    found = json.loads((tmp_path / "s.json").read_text())["series"]
    assert {name: [point["x"] for point in points] for name, points in found.items()} == {"a": [1, 2, 4], "b": [3]}
    assert page.slope(found["a"]) == pytest.approx(1.0) and page.slope(found["a"], "plain") == pytest.approx(0.0)
    with pytest.raises(SystemExit, match="one of a, b"):
        series.main(series.Config(only="c", out=config.out, figure=config.figure), toy)


def test_memory_of_a_gradient_and_seconds_to_compile_are_found() -> None:
    from benchmarks import growth

    small = growth._peak_mib(2, rows=64, batch=2, columns=8)
    assert small["y"] > 0 and small["plain"] > 0
    assert set(SERIES) >= {"rows", "adc_bits", "batch", "layers", "tasks", "pixels", "tiles", "memory", "compile"}
    assert SERIES["tiles"].at[0] == 2 and SERIES["tiles"].at[-1] == 512


# ---------------------------------------------------------------------------------------------------------------------
# The wait


def test_a_moment_belongs_to_the_innermost_of_what_goes_on() -> None:
    spans = [
        waited.Span("training steps", 1.0, 9.0, 1),
        waited.Span("trace", 2.0, 4.0, 1),
        waited.Span("trace", 2.5, 3.0, 1),  # within the other: counted once
        waited.Span("XLA compile", 4.0, 6.0, 1),
        waited.Span("cache load", 5.5, 6.1, 1),  # its end is reported late
        waited.Span("saving", 9.5, 12.0, 1),  # not over when all else is
        waited.Span("XLA compile", 2.0, 5.0, 2),
        waited.Span("input", 4.0, 4.5, 2),
    ]
    own = waited.owned(spans, 1, 0.0, 10.0)
    expected = {"rest": 1.5, "training steps": 4.0, "trace": 2.0, "XLA compile": 1.5, "cache load": 0.5, "saving": 0.5}
    assert own == pytest.approx(expected) and math.fsum(own.values()) == pytest.approx(10.0)
    assert waited.owned_beside(spans, 1) == pytest.approx({"XLA compile": 2.5, "input": 0.5})


@pytest.mark.parametrize(("phase", "module", "name"), [*waited.WRAPPED, ("first row", *waited.FIRST_ROW)])
def test_what_is_waited_for_is_a_function_of_the_package(phase: str, module: str, name: str) -> None:
    assert callable(waited.found(module, name)[2]) and phase in (*waited.PHASES, "first row")


def test_waiting_for_the_next_of_an_iterator_is_noted() -> None:
    spans: list[waited.Span] = []
    call = waited._timed(spans, "input", lambda count: iter(range(count)))
    assert list(call(3)) == [0, 1, 2] and [span.name for span in spans] == ["input"] * 5


def of_a_run(scale: float, quiet: bool = True) -> dict[str, Any]:
    seconds = dict.fromkeys(waited.PHASES, scale) | {"page": 0.0}
    return {"total": sum(seconds.values()), "first_row": 2 * scale, "seconds": seconds, "quiet": quiet}


@pytest.mark.parametrize("before", [False, True])
def test_a_wait_is_a_table_and_a_picture(before: bool, tmp_path: Path) -> None:
    found: dict[str, Any] = {"runs": {"cold": of_a_run(2.0), "warm": of_a_run(1.0, quiet=False)}}
    found |= {"before": {"cold": of_a_run(3.0), "warm": of_a_run(2.0)} if before else None}
    assert wait.draw(found, None).startswith(b"\x89PNG")
    cells = {line[0]: line[1:] for line in page.wait_rows(found)}
    assert cells["seconds"] == (["cold before", "warm before", "cold now", "warm now"] if before else ["cold", "warm"])
    assert cells["import"][-2:] == ["2.0", "1.0"] and cells["all of it"][-2:] == ["30.0", "15.0"]
    assert cells["goal of all of it"][-2:] == ["100", "60"] and cells["machine"][-2:] == ["quiet", "not quiet"]
    out = tmp_path / "wait.json"
    assert wait._before(wait.Config(out=out)) is None
    out.write_text(json.dumps(found))
    assert wait._before(wait.Config(out=out)) == (found["before"] or found["runs"])
    assert wait._before(wait.Config(out=tmp_path / "new.json", before=out)) == found["runs"]


@pytest.mark.slow  # starts a process twice
def test_a_process_is_watched_from_its_start_to_its_end(tmp_path: Path) -> None:
    wait.main(wait.Config(out=tmp_path / "w.json", figure=tmp_path / "w.png", args=("--version",)))
    for one in json.loads((tmp_path / "w.json").read_text())["runs"].values():
        assert set(one["seconds"]) == set(waited.PHASES) and one["first_row"] is None
        assert sum(one["seconds"].values()) == pytest.approx(one["total"], abs=0.2)
        assert one["seconds"]["import"] > 0.1


# ---------------------------------------------------------------------------------------------------------------------
# The page


def test_the_page_is_of_the_committed_numbers() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text) == text


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    text = page.filled(page.PAGE.read_text(encoding="utf-8"), tmp_path)
    assert text.count("Not measured yet.") == 3
    (tmp_path / "latest.json").write_text("[]")
    assert page.filled(text, tmp_path).count("| not measured yet |") == len(ROWS)

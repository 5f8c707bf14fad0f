"""The user's own device: CSV tables, direct tables and functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from xbm_jax.crossbar.devices.tables import FunctionDevice, TableDevice, from_csv
from xbm_jax.errors import SpecError

N = 100_000
US = 1e-6
Write = Callable[[str], Path]

STATIC = """g_siemens,mean,sigma
0,0.5e-6,0.1e-6
10e-6,10e-6,0.5e-6
40e-6,38e-6,2e-6
"""
TIMED = """g_siemens, mean, sigma, time_seconds
10e-6, 10e-6, 0.5e-6, 0
30e-6, 30e-6, 1.5e-6, 0
10e-6,  9e-6, 0.8e-6, 1000
30e-6, 28e-6, 1.0e-6, 1000
"""
LEVELS = """level,mean,sigma
0,2e-6,0.1e-6
1,9e-6,0.4e-6
2,22e-6,0.8e-6
3,32e-6,1.0e-6
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "device.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def check_moments(samples: np.ndarray, mean: float, sigma: float) -> None:
    samples = np.asarray(samples, np.float64)
    assert abs(samples.mean() - mean) < 4 * sigma / math.sqrt(samples.size)
    assert abs(samples.std() - sigma) < 4 * sigma / math.sqrt(2 * samples.size)


def columns(g_us: list[float]) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(g_us) * US, (N, len(g_us)))


def test_programming_moments_between_the_rows(write: Write) -> None:
    device = from_csv(write(STATIC))
    targets = [4.0, 10.0, 20.0, 25.0, 40.0]
    means, sigmas = [4.3, 10.0, 19.3333333, 24.0, 38.0], [0.26, 0.5, 1.0, 1.25, 2.0]
    g = np.asarray(device.program(columns(targets), 40 * US, jax.random.key(0))) / US
    for k in range(5):
        check_moments(g[:, k], means[k], sigmas[k])
    # No times in the table: the cell holds what was written.
    held = device.drift(columns(targets), columns(targets), 40 * US, 1e6, jax.random.key(1))
    np.testing.assert_array_equal(held, columns(targets))
    assert device.read_sigma(held, 40 * US, 0.0) is None


@pytest.mark.parametrize(
    ("t", "means", "sigmas"),
    [
        (0.0, [10.0, 15.0, 20.0, 25.0, 30.0], [0.5, 0.75, 1.0, 1.25, 1.5]),
        (500.0, [9.5, 14.375, 19.25, 24.125, 29.0], [0.65, 0.8, 0.95, 1.1, 1.25]),
        (1000.0, [9.0, 13.75, 18.5, 23.25, 28.0], [0.8, 0.85, 0.9, 0.95, 1.0]),
        (1e7, [9.0, 13.75, 18.5, 23.25, 28.0], [0.8, 0.85, 0.9, 0.95, 1.0]),  # held
    ],
)
def test_moments_in_time(write: Write, t: float, means: list[float], sigmas: list[float]) -> None:
    """The spread grows at 10 uS and shrinks at 30 uS."""
    device, target = from_csv(write(TIMED)), columns([10.0, 15.0, 20.0, 25.0, 30.0])
    written = device.program(target, 30 * US, jax.random.key(2))
    g = np.asarray(device.drift(written, target, 30 * US, t, jax.random.key(3))) / US
    for k in range(5):
        check_moments(g[:, k], means[k], sigmas[k])
    if t == 0.0:
        np.testing.assert_array_equal(g, np.asarray(written) / US)


def test_levels_lie_evenly_between_the_ends_and_follow_g_max(write: Write) -> None:
    device = from_csv(write(LEVELS))
    for g_max in (32.0, 128.0):
        scale = g_max / 32
        targets = [scale * g for g in (2.0, 12.0, 22.0, 32.0)]  # on/off 16, four even levels
        mean, sigma = device.moments(jnp.asarray(targets) * US, g_max * US, 0.0)
        np.testing.assert_allclose(np.asarray(mean) / US, scale * np.asarray([2.0, 9.0, 22.0, 32.0]), rtol=1e-5)
        np.testing.assert_allclose(np.asarray(sigma) / US, scale * np.asarray([0.1, 0.4, 0.8, 1.0]), rtol=1e-5)


def test_absolute_tables_do_not_follow_g_max_and_refuse_to_be_left(write: Write) -> None:
    device, g = from_csv(write(STATIC)), jnp.asarray([10.0, 20.0]) * US
    for g_max in (20.0, 40.0):
        np.testing.assert_allclose(device.moments(g, g_max * US, 0.0)[1], [0.5e-6, 1.0e-6], rtol=1e-5)
    with pytest.raises(SpecError, match=r"g_max = 6e-05: at most 4e-05 S, the table's highest g_siemens"):
        device.program(g, 6e-5, jax.random.key(0))
    twice = replace(device, rescale=True).moments(2 * g, 80 * US, 0.0)[1]
    np.testing.assert_allclose(twice, [1.0e-6, 2.0e-6], rtol=1e-5)


@hypothesis.given(
    rows=st.lists(
        st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 5)), min_size=2, max_size=6, unique_by=lambda r: r[0]
    ),
    share=st.floats(0, 1),
)
def test_interpolation_is_that_of_numpy(rows: list[tuple[float, float, float]], share: float) -> None:
    rows = sorted(rows)
    at, mean, sigma = (np.asarray(column, np.float64) * US for column in zip(*rows, strict=True))
    hypothesis.assume(np.diff(at).min() > 1e-3 * at[-1])  # float32 cannot tell nearer points apart well
    hypothesis.assume(at[-1] >= 1e-30)  # refused, see below
    device = TableDevice(tuple(at.tolist()), (tuple(mean.tolist()),), (tuple(sigma.tolist()),))
    target = float(np.float32(share * at[-1]))
    got = device.moments(jnp.asarray([target]), float(at[-1]), 0.0)
    for value, column in zip(got, (mean, sigma), strict=True):
        assert float(value[0]) == pytest.approx(np.interp(target, at, column), rel=1e-3, abs=1e-3 * column.max())


def test_conductances_that_float32_cannot_divide_by_are_refused() -> None:
    with pytest.raises(SpecError, match=r"TableDevice\.g_siemens = .*: a highest conductance of at least 1e-30 S"):
        TableDevice((0.0, 1.2e-38), ((0.0, 0.0),), ((0.0, 0.0),))


def test_tables_are_hashable_traceable_and_repeatable(write: Write) -> None:
    device = from_csv(write(TIMED))
    assert hash(device) == hash(from_csv(write(TIMED)))
    assert device == from_csv(write(TIMED))
    target = jnp.linspace(0.0, 30.0, 32) * US

    def chip(key: jax.Array, t: jax.Array | float) -> jax.Array:
        g = device.program(target, 30 * US, key)
        return device.drift(g, target, 30 * US, t, jax.random.fold_in(key, 1))  # type: ignore[arg-type]

    keys, chips = jax.random.split(jax.random.key(4), 3), jax.jit(jax.vmap(chip, in_axes=(0, None)))
    population = np.asarray(chips(keys, jnp.float32(500.0)))
    np.testing.assert_array_equal(population, chips(keys, jnp.float32(500.0)))
    np.testing.assert_allclose(chip(keys[1], 500.0), population[1], rtol=1e-5)
    assert np.any(population[0] != population[1])
    assert population.dtype == target.dtype


def test_column_order_spaces_and_byte_order_marks_do_not_matter(write: Write) -> None:
    shuffled = "\ufeff sigma , time_seconds,mean,g_siemens\n.5e-6,0,1e-5,1e-5\n1.5e-6,0,3e-5,3e-5\n"
    shuffled += "\n0.8e-6,1000,9e-6,10e-6\n1.0e-6,1000,28e-6,30e-6\n"
    assert from_csv(write(shuffled)) == from_csv(write(TIMED))


BAD = {
    "no sigma": ("g_siemens,mean\n0,0\n", r"line 1, column 'sigma' = .*g_siemens or level .*, mean, sigma"),
    "no mean": ("g_siemens,sigma\n0,0\n", r"line 1, column 'mean' = "),
    "no conductance": ("mean,sigma\n0,0\n", r"line 1, column 'g_siemens' or 'level' = "),
    "both": ("level,g_siemens,mean,sigma\n0,0,0,0\n", r"line 1, column 'g_siemens' or 'level' = "),
    "unknown": ("g_siemens,mean,sigma,time\n0,0,0,0\n", r"line 1, column 'time' = "),
    "twice": ("g_siemens,mean,sigma,mean\n0,0,0,0\n", r"line 1, column 'mean' = "),
    "empty file": ("", r"line 1, column 'g_siemens' or 'level' = \[\]"),
    "no rows": ("g_siemens,mean,sigma\n", r"at least two rows of g_siemens, mean, sigma"),
    "one row": ("g_siemens,mean,sigma\n1e-6,1e-6,0\n", r"line 2, column 'g_siemens' = 1e-06: at least two rows"),
    "nan": (STATIC + "50e-6,nan,1e-6\n", r"line 5, column 'mean' = 'nan': a finite number, at least 0"),
    "infinite": (STATIC + "50e-6,5e-5,inf\n", r"line 5, column 'sigma' = 'inf': a finite number, at least 0"),
    "a word": (STATIC + "50e-6,False,1e-6\n", r"line 5, column 'mean' = 'False': a finite number, at least 0"),
    "empty field": (STATIC + "50e-6,,1e-6\n", r"line 5, column 'mean' = '': a finite number, at least 0"),
    "short row": (STATIC + "50e-6,5e-5\n", r"line 5, column 'sigma' = None: a finite number, at least 0"),
    "long row": (STATIC + "50e-6,5e-5,1e-6,7\n", r"line 5, column 4 = \['7'\]: no field beyond"),
    "negative sigma": (STATIC + "50e-6,5e-5,-1e-6\n", r"line 5, column 'sigma' = '-1e-6': a finite number, at least 0"),
    "negative g": ("g_siemens,mean,sigma\n-1e-6,0,0\n", r"line 2, column 'g_siemens' = '-1e-6': a finite number"),
    "negative time": (TIMED.replace(" 0\n", " -1\n", 1), r"line 2, column 'time_seconds' = '-1': a finite number"),
    "unsorted": (STATIC + "20e-6,2e-5,1e-6\n", r"line 5, column 'g_siemens' = 2e-05: above 4e-05"),
    "the same twice": (STATIC + "40e-6,38e-6,2e-6\n", r"line 5, column 'g_siemens' = 4e-05: above 4e-05"),
    "time unsorted": (TIMED + "50e-6,5e-5,1e-6,10\n", r"line 6, column 'time_seconds' = 10.0: rows sorted by time"),
    "missing at a later time": (
        TIMED.replace("30e-6, 28e-6, 1.0e-6, 1000\n", ""),
        r"line 4, column 'g_siemens' = \[3e-05\]: a row for each at time 1000 too",
    ),
    "new at a later time": (TIMED + "50e-6,5e-5,1e-6,1000\n", r"line 6, column 'g_siemens' = 5e-05: one of those at"),
    "missing level": (LEVELS.replace("2,22e-6,0.8e-6\n", ""), r"line 4, column 'level' = 3.0: level 2: no level"),
    "half a level": (LEVELS.replace("1,9", "1.5,9"), r"line 3, column 'level' = 1.5: level 1"),
    "levels that fall": (
        "level,mean,sigma\n0,2e-6,0\n1,1e-6,0\n",
        r"line 3, column 'mean' = 1e-06: above that of level 0, 2e-06",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_by_line_and_column(write: Write, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_csv(write(text))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"from_csv\.path = .*none\.csv'.*: a readable CSV file"):
        from_csv(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"g_siemens,mean,sigma\n\xff,1,1\n")
    with pytest.raises(SpecError, match="a readable CSV file"):
        from_csv(tmp_path / "latin.csv")


ROW = (0.0, 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TableDevice(ROW, (ROW,), (ROW,), rescale="False"), "TableDevice.rescale = 'False': True or False"),  # type: ignore[arg-type]
        (lambda: TableDevice((0.0, 0.0), (ROW,), (ROW,)), "TableDevice.g_siemens[1] = 0.0: above 0"),
        (lambda: TableDevice((0.0,), (ROW,), (ROW,)), "TableDevice.g_siemens = (0.0,): at least 2 numbers"),
        (lambda: TableDevice(ROW, ((0.0,),), (ROW,)), "TableDevice.mean_siemens[0] = (0.0,): 2 numbers"),
        (lambda: TableDevice(ROW, (ROW, ROW), (ROW,)), "TableDevice.mean_siemens = "),
        (lambda: TableDevice(ROW, (ROW,), ((0.0, -1e-6),)), "TableDevice.sigma_siemens[0][1] = -1e-06: a finite"),
        (lambda: TableDevice([0.0, 1e-6], (ROW,), (ROW,)), "TableDevice.g_siemens = [0.0, 1e-06]: a tuple"),  # type: ignore[arg-type]
        (lambda: TableDevice(ROW, (ROW, ROW), (ROW, ROW), (5.0, 1.0)), "TableDevice.times_seconds[1] = 1.0: above 5"),
        (lambda: FunctionDevice(program_sigma=0.1), "FunctionDevice.program_sigma = 0.1: a function, or None"),  # type: ignore[arg-type]
    ],
)
def test_impossible_tables_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError) as error:
        make()
    assert str(error.value).startswith(message)


def test_a_device_from_functions() -> None:
    device = FunctionDevice(
        program_sigma=lambda target, g_max: 0.01 * g_max + 0.05 * target,
        program_mean=lambda target, g_max: 0.9 * target,
        drifted=lambda g, target, g_max, t, key: g - 1e-9 * t,
        reading_sigma=lambda g, g_max, t: 0.1 * g,
    )
    targets = [10.0, 15.0, 20.0, 30.0, 40.0]
    g = device.program(columns(targets), 40 * US, jax.random.key(5))
    for k, target in enumerate(targets):
        check_moments(np.asarray(g)[:, k] / US, 0.9 * target, 0.4 + 0.05 * target)
    later = device.drift(g, g, 40 * US, 1e3, jax.random.key(6))
    np.testing.assert_allclose(later[0], g[0] - 1e-6, rtol=1e-5)
    assert float(device.drift(g, g, 40 * US, 1e9, jax.random.key(6)).max()) == 0.0
    sigma = device.read_sigma(g[0], 40 * US, 0.0)
    assert sigma is not None
    np.testing.assert_allclose(sigma, 0.1 * g[0], rtol=1e-6)


def test_functions_left_out_do_nothing() -> None:
    device, g = FunctionDevice(), jnp.linspace(0.0, 40.0, 5) * US
    np.testing.assert_array_equal(device.program(g, 40 * US, jax.random.key(0)), g)
    np.testing.assert_array_equal(device.drift(g, g, 40 * US, 1e6, jax.random.key(0)), g)
    assert device.read_sigma(g, 40 * US, 0.0) is None

"""Wire resistance: nodal analysis by other programs, a dense nodal analysis of its own, closed forms and limits."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.crossbar.primitives import wires
from xbm_jax.crossbar.primitives.wires import fold_wires
from xbm_jax.errors import SpecError

G_MIN, G_MAX = 1e-6, 3e-4
TRACED = jax.jit(fold_wires)  # both resistances traced: zero takes the general path
SHAPES = [(1, 1), (1, 5), (6, 1), (5, 5), (3, 7), (7, 4)]


def fold64(g: np.ndarray, row_ohms: float, col_ohms: float, fold: Callable[..., jax.Array] = TRACED) -> np.ndarray:
    """The fold in float64, whatever the session's default."""
    with jax.enable_x64(True):
        return np.asarray(fold(jnp.asarray(g, jnp.float64), row_ohms, col_ohms))


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Conductances of an on/off ratio of 300, log-uniform, a fifth of the cells empty."""
    rng = np.random.default_rng(seed)
    g = np.exp(rng.uniform(np.log(G_MIN), np.log(G_MAX), shape))
    return np.where(rng.random(shape) < 0.2, 0.0, g)


def nodal_currents(g: np.ndarray, v: np.ndarray, row_ohms: float, col_ohms: float) -> np.ndarray:
    """Column currents [batch, m] of the circuit for inputs ``v`` [batch, n]: every node stamped into one dense matrix.

    Node 0 is the ground, 1..n the drivers; an ideal line has no nodes of its own. A column's current is the sum over
    its cells, which does not depend on how its last segment is written down.
    """
    n, m = g.shape
    word = 1 + np.repeat(np.arange(n)[:, None], m, 1)
    bit = np.zeros((n, m), int)
    nodes = n + 1
    if row_ohms:
        word, nodes = nodes + np.arange(n * m).reshape(n, m), nodes + n * m
    if col_ohms:
        bit, nodes = nodes + np.arange(n * m).reshape(n, m), nodes + n * m
    branches = [(word[i, j], bit[i, j], g[i, j]) for i in range(n) for j in range(m)]
    if row_ohms:
        before = np.concatenate([1 + np.arange(n)[:, None], word[:, :-1]], 1)
        branches += [(a, b, 1 / row_ohms) for a, b in zip(before.ravel(), word.ravel(), strict=True)]
    if col_ohms:
        after = np.concatenate([bit[1:], np.zeros((1, m), int)], 0)
        branches += [(a, b, 1 / col_ohms) for a, b in zip(bit.ravel(), after.ravel(), strict=True)]
    laplacian = np.zeros((nodes, nodes))
    for a, b, siemens in branches:
        laplacian[[a, b], [a, b]] += siemens
        laplacian[[a, b], [b, a]] -= siemens
    volts = np.concatenate([np.zeros((len(v), 1)), v, np.zeros((len(v), nodes - n - 1))], 1)
    free = slice(n + 1, nodes)
    volts[:, free] = np.linalg.solve(laplacian[free, free], -laplacian[free, : n + 1] @ volts[:, : n + 1].T).T
    return (g * (volts[:, word] - volts[:, bit])).sum(1)


@pytest.mark.parametrize("case", "abcd")
def test_agrees_with_sparse_nodal_analysis_by_another_program(oracle, case: str) -> None:
    arrays = oracle("ir_drop")
    g, v, ohms, expected = (arrays[f"{case}_{name}"] for name in "gvri")
    currents = v.T @ fold64(g, float(ohms), float(ohms))
    np.testing.assert_allclose(currents.T, expected, rtol=1e-10)


@given(
    shape=st.sampled_from(SHAPES),
    row_ohms=st.sampled_from([0.0, 0.35, 2.5, 50.0, 4e3]),
    col_ohms=st.sampled_from([0.0, 0.5, 3.0, 70.0, 2e3]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_dense_nodal_analysis(shape, row_ohms: float, col_ohms: float, seed: int) -> None:
    g, v = draw(shape, seed), np.random.default_rng(seed).uniform(-0.2, 0.2, (3, shape[0]))
    expected = nodal_currents(g, v, row_ohms, col_ohms)
    currents = v @ fold64(g, row_ohms, col_ohms)
    np.testing.assert_allclose(currents, expected, rtol=1e-10, atol=1e-12 * G_MAX)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("row_ohms", "col_ohms"), [(0.0, 40.0), (25.0, 0.0)])
def test_one_ideal_direction_known_or_traced(shape, row_ohms: float, col_ohms: float) -> None:
    g = draw(shape)
    known = fold64(g, row_ohms, col_ohms, fold_wires)
    np.testing.assert_allclose(known, fold64(g, row_ohms, col_ohms), rtol=1e-12)
    np.testing.assert_allclose(known, nodal_currents(g, np.eye(shape[0]), row_ohms, col_ohms), rtol=1e-10, atol=1e-18)


def test_ideal_wires_change_nothing() -> None:
    g = jnp.asarray(draw((2, 6, 5)), jnp.float32)
    np.testing.assert_array_equal(fold_wires(g, 0, 0.0), g)
    np.testing.assert_array_equal(TRACED(g, 0.0, 0.0), g)
    assert fold_wires(jnp.ones((2, 2), jnp.int32), 0, 0).dtype == jnp.int32


def test_first_order_in_the_resistance() -> None:
    """For small R the effective conductances fall linearly; a wrong limit would show at either step."""
    g = draw((6, 5))
    drop, half = (g - fold64(g, ohms, 2 * ohms) for ohms in (2e-3, 1e-3))
    assert 0 < np.abs(half).max() < 1e-4 * G_MAX
    np.testing.assert_allclose(drop, 2 * half, rtol=1e-3, atol=1e-12 * G_MAX)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (0, 4), (5, 0), (5, 4), (2, 3)])
def test_a_single_cell_is_in_series_with_its_segments(i: int, j: int) -> None:
    """``1 / (1/g + (j+1) R + (n-i) C)``: which end is driven, which is ground, which resistance is whose."""
    g = np.zeros((6, 5))
    g[i, j] = 1e-4
    expected = np.zeros((6, 5))
    expected[i, j] = 1 / (1 / 1e-4 + (j + 1) * 30.0 + (6 - i) * 7.0)
    np.testing.assert_allclose(fold64(g, 30.0, 7.0), expected, rtol=1e-12)


def test_one_cell() -> None:
    np.testing.assert_allclose(fold64(np.array([[2e-4]]), 10.0, 3.0), 1 / (1 / 2e-4 + 13.0), rtol=1e-14)


def test_one_word_line_is_a_ladder() -> None:
    """Two cells of one word line, ideal bit lines, by hand."""
    g1, g2, r = 2e-4, 5e-5, 100.0
    behind = 1 / (r + 1 / g2)
    u1 = 1 / r / (1 / r + g1 + behind)
    u2 = u1 * behind / g2
    np.testing.assert_allclose(fold64(np.array([[g1, g2]]), r, 0.0), [[g1 * u1, g2 * u2]], rtol=1e-13)


def test_rows_and_columns_are_not_interchangeable() -> None:
    g = draw((6, 6))
    assert np.abs(fold64(g, 50.0, 1.0) - fold64(g, 1.0, 50.0)).max() > 1e-3 * G_MAX


@pytest.mark.parametrize("shape", [(6, 6), (7, 4)])
def test_reciprocity(shape) -> None:
    """Driven from the bit lines and read at the word lines, the same array has the same transfer conductances."""
    g = draw(shape)
    turned = fold64(g[::-1, ::-1].T, 3.0, 40.0)[::-1, ::-1].T
    np.testing.assert_allclose(fold64(g, 40.0, 3.0), turned, rtol=1e-11)


def test_total_conductance_falls_with_every_resistance() -> None:
    """Rayleigh's monotonicity: all drivers at one voltage see one conductance, which no resistance can raise."""
    g = draw((8, 6))
    totals = np.array([[fold64(g, r, c).sum() for c in (0.0, 1.0, 10.0, 1e3)] for r in (0.0, 1.0, 10.0, 1e3)])
    assert np.all(np.diff(totals, axis=0) < 0) and np.all(np.diff(totals, axis=1) < 0)
    assert np.all(fold64(g, 1e3, 1e3) >= 0)


@pytest.mark.parametrize(("size", "ohms"), [(64, 0.1), (64, 1.0), (64, 50.0), (128, 200.0)])
@pytest.mark.slow
def test_float32_is_enough(size: int, ohms: float) -> None:
    """Every entry to 5e-6 of itself, from wires that hardly matter to wires that leave 0.5 % of the current."""
    g = np.random.default_rng(0).choice([G_MIN, G_MAX], (size, size)).astype(np.float32)
    single = fold_wires(jnp.asarray(g), ohms, ohms)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, fold64(g, ohms, ohms), rtol=5e-6)


def test_a_batch_is_its_arrays_one_by_one() -> None:
    g = draw((2, 3, 5, 7))
    one_by_one = [[fold64(array, 5.0, 9.0) for array in group] for group in g]
    np.testing.assert_allclose(fold64(g, 5.0, 9.0), one_by_one, rtol=1e-12)


@pytest.mark.parametrize("arrays_per_chunk", [1, 3])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, arrays_per_chunk: int) -> None:
    g = draw((7, 5, 4))
    whole = fold64(g, 5.0, 9.0, fold_wires)
    monkeypatch.setattr(wires, "CHUNK_BYTES", arrays_per_chunk * 7 * 4 * (4 + 5) * 8)
    np.testing.assert_allclose(fold64(g, 5.0, 9.0, fold_wires), whole, rtol=1e-12)
    with jax.enable_x64(True):
        past = fold_wires(jnp.asarray(g), 5.0, 9.0, np.arange(7))
        alone = [fold_wires(jnp.asarray(array), 5.0, 9.0, rows) for rows, array in enumerate(g)]
    np.testing.assert_allclose(past, alone, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 7), (7, 4)])
@pytest.mark.parametrize(("row_ohms", "col_ohms"), [(0.0, 70.0), (25.0, 0.0), (2.5, 70.0)])
def test_rows_that_are_passed_are_an_array_of_empty_ones(shape, row_ohms: float, col_ohms: float) -> None:
    """Three arrays in one call; rows above those that are read change nothing."""
    g, passed, (n, m) = draw((3, *shape)), np.array([0, 1, 40]), shape
    with jax.enable_x64(True):
        folded = np.asarray(fold_wires(jnp.asarray(g), row_ohms, col_ohms, passed))
    for array, rows, got in zip(g, passed, folded, strict=True):
        whole = np.concatenate([np.zeros((2, m)), array, np.zeros((rows, m))])
        expected = nodal_currents(whole, np.eye(len(whole)), row_ohms, col_ohms)[2 : 2 + n]
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-18)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_gradients_past_rows_are_those_of_an_array_of_empty_ones(shape) -> None:
    weight = jnp.asarray(np.random.default_rng(1).normal(size=shape))

    def passing(g, row_ohms, col_ohms):
        return (weight * fold_wires(g, row_ohms, col_ohms, 6)).sum()

    def whole(g, row_ohms, col_ohms):
        return (weight * fold_wires(jnp.pad(g, ((0, 6), (0, 0))), row_ohms, col_ohms)[: len(g)]).sum()

    with jax.enable_x64(True):
        got, wanted = (jax.grad(f, (0, 1, 2))(jnp.asarray(draw(shape)), 300.0, 500.0) for f in (passing, whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, wanted)


@pytest.mark.parametrize("passed", [-1, np.array([0, -3]), float("nan")])
def test_bad_rows_passed(passed) -> None:
    with pytest.raises(SpecError, match=r"passed = .*zero or more"):
        fold_wires(jnp.ones((2, 2, 2)), 1.0, 1.0, passed)


def test_jit_and_vmap_over_chips() -> None:
    """A population: each key draws its own conductances, the fold sits inside the mapped function."""

    def chip(key: jax.Array) -> jax.Array:
        return fold_wires(jax.random.uniform(key, (2, 5, 4), minval=G_MIN, maxval=G_MAX), 20.0, 30.0)

    keys = jax.random.split(jax.random.key(0), 3)
    one_by_one = jnp.stack([chip(key) for key in keys])
    np.testing.assert_allclose(jax.jit(jax.vmap(chip))(keys), one_by_one, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_gradients(shape) -> None:
    """Against central differences, cells of zero conductance and both resistances included."""
    weight = np.random.default_rng(1).normal(size=shape)

    def loss(g, row_ohms, col_ohms):
        return (jnp.asarray(weight) * fold_wires(g, row_ohms, col_ohms)).sum() / G_MAX

    point = draw(shape), 300.0, 500.0
    along = np.random.default_rng(2).uniform(0, G_MAX, shape), 100.0, -70.0
    step = 1e-4
    with jax.enable_x64(True):
        slopes = jax.grad(loss, (0, 1, 2))(*(jnp.asarray(p) for p in point))
        assert all(jnp.isfinite(slope).all() for slope in slopes)
        slope = sum(float((s * a).sum()) for s, a in zip(slopes, along, strict=True))
        ends = [loss(*(p + sign * step * a for p, a in zip(point, along, strict=True))) for sign in (-1, 1)]
    assert abs(slope) > 1e-2
    np.testing.assert_allclose((float(ends[1]) - float(ends[0])) / (2 * step), slope, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtype_is_kept(dtype) -> None:
    g = jnp.full((3, 2), 0.25, dtype)
    folded = fold_wires(g, 0.5, 0.25)
    assert folded.dtype == dtype
    np.testing.assert_array_equal(folded, fold_wires(g.astype(jnp.float32), 0.5, 0.25).astype(dtype))


def test_empty_arrays() -> None:
    np.testing.assert_array_equal(fold_wires(jnp.zeros((2, 4, 4)), 1.0, 1.0), 0.0)
    assert fold_wires(jnp.zeros((0, 4, 4)), 1.0, 1.0).shape == (0, 4, 4)


@pytest.mark.parametrize("bad", [-1.0, -1e-9, float("nan"), float("inf"), None, np.ones(2)])
@pytest.mark.parametrize("field", ["row_ohms", "col_ohms"])
def test_bad_resistance(field: str, bad) -> None:
    with pytest.raises(SpecError, match=f"{field} = .*zero or more ohms") as error:
        fold_wires(jnp.ones((2, 2)), **({"row_ohms": 1.0, "col_ohms": 1.0} | {field: bad}))
    assert error.value.field == field


def test_bad_shape() -> None:
    with pytest.raises(SpecError, match="rows, columns"):
        fold_wires(jnp.ones(3), 1.0, 1.0)

"""Input channels in an order of their own: a read against the literal one, and against a kernel that is moved instead.

Whatever is known of a kernel whose channels lie in memory in the order wanted, under ``"channel"``, holds of the kernel
itself under that order: values, gradients, noise, wires, ranges, clipping.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.literal import tile_of
from crossbar.test_read import Case, assert_equals, codes_of, conv_cases, dense_cases, few, integer_adcs, quick_jit
from xbm_jax.crossbar import (
    Adc,
    Cell,
    ChannelOrder,
    Conv,
    CrossbarSpec,
    Faults,
    Gaussian,
    MiloCurve,
    Tiles,
    Wires,
    plan,
    program,
    read,
    reprogram,
)
from xbm_jax.crossbar.reading import loops
from xbm_jax.crossbar.reading.columns import gain_on_kernel
from xbm_jax.crossbar.reading.observe import conversions
from xbm_jax.crossbar.writing.cells import effective_levels
from xbm_jax.crossbar.writing.ranges import known_range
from xbm_jax.errors import SpecError

ADC = Adc(5, (-310.0, 620.0))
SPEC = CrossbarSpec(rows=8, dac_bits=4, cell=Cell(3, 10.0), adc=ADC)

LAYERS: dict[str, tuple[tuple[int, ...], Conv | None]] = {
    "dense": ((19, 3), None),
    "conv": ((2, 3, 7, 4), Conv((2, 1), ((1, 1), (1, 0)))),
    "grouped": ((2, 1, 6, 4), Conv((1, 1), "SAME", (1, 2), groups=2)),
}


@pytest.mark.parametrize(("kind", "scanned"), [(dense_cases, False), (conv_cases, False), (conv_cases, True)])
def test_a_read_equals_literal(kind: Any, scanned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any geometry, converters or none, each row where the order puts it."""
    if scanned:
        monkeypatch.setattr(loops, "_TALL", 2)

    @few(4)
    @given(st.data(), integer_adcs() | st.just(Adc(bits=None)))
    def check(data: st.DataObject, adc: Adc) -> None:
        case: Case = data.draw(kind(adc=adc))
        order = ChannelOrder(data.draw(st.permutations(range(case.shape[-2]))))
        case = dataclasses.replace(case, spec=case.spec.replace(row_order=order))
        literal = case.ideal(None if adc.bits is None else codes_of(adc))
        _, y = case.run("columns")
        assert_equals(y, literal.read(case.codes, case.gain)[0], case, literal)

    check()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A layer under an order, and its twin: the kernel moved into that order instead."""

    shape: tuple[int, ...]
    conv: Conv | None
    spec: CrossbarSpec
    order: ChannelOrder

    @property
    def inputs(self) -> np.ndarray:
        """Where the twin's inputs come from: every group's in the same order."""
        groups = 1 if self.conv is None else self.conv.groups
        return np.concatenate([g * self.shape[-2] + np.array(self.order.order) for g in range(groups)])

    @property
    def kernel(self) -> np.ndarray:
        return np.random.default_rng(0).normal(size=self.shape).astype(np.float32)

    @property
    def x(self) -> jax.Array:
        size = (5, self.shape[0]) if self.conv is None else (2, 4, 5, len(self.inputs))
        return jnp.asarray(np.random.default_rng(1).integers(-40, 150, size) / 4 + 0.1, jnp.float32)

    @property
    def gain(self) -> jax.Array:
        count = int(np.prod(self.shape[:-1]))
        size = (-(-count // self.spec.rows), self.shape[-1])
        return jnp.asarray(np.random.default_rng(2).choice([0.0, 1.0, -0.5, 2.0], size), jnp.float32)

    def written(self) -> tuple[Tiles, Tiles]:
        """Cell by cell the same twice, each in its layout."""
        spec = self.spec.replace(row_order=self.order)
        make = quick_jit(program, static_argnums=1)
        own = make(self.kernel, plan(self.kernel, spec, self.conv, signed_inputs=True), jax.random.key(0))
        twin_plan = plan(self.moved(self.kernel), self.spec, self.conv, signed_inputs=True)
        names = ("levels", "programmed", "conductance", "effective", "curvature", "read_variance")
        cells = jax.tree.map(self.moved, {name: getattr(own, name) for name in names})
        own = own.replace(input_scale=jnp.float32(0.25))
        return own, own.replace(**cells, plan=twin_plan)

    def moved(self, cells: Any) -> Any:
        """An array over the kernel, [..., channels, N], as the twin has it."""
        return cells[..., np.array(self.order.order), :]


def problem_of(layer: str, spec: CrossbarSpec = SPEC, order: Any = None) -> Problem:
    shape, conv = LAYERS[layer]
    return Problem(
        shape, conv, spec, ChannelOrder(np.random.default_rng(5).permutation(shape[-2]) if order is None else order)
    )


def close(got: Any, wanted: Any) -> None:
    """To the rounding of sums in another order."""
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


def check_gradients(problem: Problem) -> None:
    """Of inputs, gains and rewritten weights; ideal cells, so that sums are exact and values equal to the bit."""

    def loss(x: jax.Array, gain: jax.Array, weights: jax.Array, tiles: Tiles) -> tuple[jax.Array, jax.Array]:
        y = read(reprogram(tiles, weights), x, gain)
        return jnp.sum(jnp.sin(y) * y), y

    take = quick_jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    own, twin = problem.written()
    (dx, dgain, dweights), y = take(problem.x, problem.gain, problem.kernel, own)
    wanted, twin_y = take(problem.x[..., problem.inputs], problem.gain, problem.moved(problem.kernel), twin)
    np.testing.assert_array_equal(y, twin_y)
    close(dx[..., problem.inputs], wanted[0])
    close(dgain, wanted[1])
    close(problem.moved(dweights), wanted[2])


UNCLIPPED = SPEC.replace(adc=dataclasses.replace(ADC, clip_gradient="zero"))


@pytest.mark.parametrize(
    ("layer", "spec"),
    [
        ("dense", SPEC),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("conv", UNCLIPPED), ("grouped", SPEC))),
    ],
    ids=list(LAYERS),
)
def test_gradients_are_those_of_the_moved_kernel(layer: str, spec: CrossbarSpec) -> None:
    check_gradients(problem_of(layer, spec))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SPEC, UNCLIPPED], ids=["pass", "zero"])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_of_any_order_are_those_of_the_moved_kernel(layer: str, spec: CrossbarSpec) -> None:
    @few(4)
    @given(st.permutations(range(LAYERS[layer][0][-2])))
    def check(order: list[int]) -> None:
        check_gradients(problem_of(layer, spec, order))

    check()


SPECS: dict[str, tuple[str, CrossbarSpec]] = {
    "errors, faults": ("grouped", SPEC.replace(device=Gaussian(0.02), faults=Faults(0.05, 0.05))),
    "ideal converter": ("conv", SPEC.replace(adc=Adc(bits=None), device=Gaussian(0.02, read_noise=0.05))),
    "noise": ("dense", SPEC.replace(device=Gaussian(read_noise=0.05), adc=dataclasses.replace(ADC, noise_lsb=0.3))),
    "offset": ("conv", SPEC.replace(encoding="offset", adc=Adc(6, (0.0, 400.0)))),
    "two passes": ("dense", SPEC.replace(negative_inputs="two_pass", subtract="digital")),
    "curve": ("grouped", SPEC.replace(curve=MiloCurve(0.3))),
    "range of each column": ("conv", SPEC.replace(adc=Adc(5, "max", per="column"), device=Gaussian(0.02))),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_read_is_that_of_the_moved_kernel(name: str) -> None:
    """Whatever cells and converters are, with the same draws; values where float32 gives each sum the same code."""
    problem = problem_of(*SPECS[name])
    own, twin = problem.written()
    if problem.spec.adc.range == "max":
        made = known_range(twin.plan, twin.effective)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), own.adc, made)
    answer, key = quick_jit(partial(read, gain_at="columns")), jax.random.key(7)
    got = np.asarray(answer(own, problem.x, problem.gain, key))
    wanted = np.asarray(answer(twin, problem.x[..., problem.inputs], problem.gain, key))
    near = np.abs(got - wanted) <= 1e-5 * np.abs(wanted).max()
    assert near.mean() > 0.97, near.mean()


def test_wires_see_rows_where_the_order_puts_them() -> None:
    problem = problem_of("grouped", SPEC.replace(wires=Wires(3.0, 7.0), cols=16, device=Gaussian(0.02)))
    own, twin = problem.written()
    through = quick_jit(lambda t: effective_levels(t.levels, t.conductance, t.plan))
    np.testing.assert_array_equal(problem.moved(own.effective), through(twin))


def test_clipping_and_codes_are_those_of_the_moved_kernel() -> None:
    problem = problem_of("conv", SPEC.replace(adc=Adc(4, (-20.0, 40.0))))
    own, twin = problem.written()
    look = quick_jit(conversions)
    got = look(own, problem.x, problem.gain)
    wanted = look(twin, problem.x[..., problem.inputs], problem.gain)
    assert got is not None and wanted is not None and float(got.clipped.sum()) > 0
    np.testing.assert_allclose(got.clipped, wanted.clipped, rtol=1e-6)
    np.testing.assert_array_equal(got.met, wanted.met)


@pytest.mark.parametrize("layer", ["dense", "conv"])
def test_the_identity_is_channel_bit_for_bit(layer: str) -> None:
    """Values and gradients, of cells whose sums round."""
    problem = problem_of(layer, SPEC.replace(device=Gaussian(0.02)), range(LAYERS[layer][0][-2]))

    @quick_jit
    def everything(tiles: Tiles) -> Any:
        def loss(x: jax.Array, gain: jax.Array, effective: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = read(tiles.replace(effective=effective), x, gain)
            return jnp.sum(y**2), y

        return jax.grad(loss, (0, 1, 2), has_aux=True)(problem.x, problem.gain, tiles.effective)

    jax.tree.map(np.testing.assert_array_equal, *map(everything, problem.written()))


@pytest.mark.parametrize("layer", ["dense", "conv"])
def test_tasks_under_vmap_are_the_tasks_one_by_one(layer: str) -> None:
    problem = problem_of(layer)
    tiles, _ = problem.written()
    gains = jnp.stack([problem.gain, jnp.roll(problem.gain, 1, axis=1)])
    xs = jnp.stack([problem.x, problem.x[::-1]])
    value = jax.value_and_grad(lambda x, gain: jnp.sum(read(tiles, x, gain) ** 2), (0, 1))
    together, alone = quick_jit(jax.vmap(value))(xs, gains), quick_jit(value)
    one_by_one = [alone(x, gain) for x, gain in zip(xs, gains, strict=True)]
    jax.tree.map(close, together, jax.tree.map(lambda *a: jnp.stack(a), *one_by_one))


def test_a_mask_bit_stands_for_the_rows_of_its_tile() -> None:
    """Two channels of nine rows fill 18 word lines: tile 0 holds the order's first channel, but for its last row."""
    spec = SPEC.replace(rows=8, row_order=ChannelOrder((1, 0)), adc=Adc(bits=None))
    made = plan(np.ones((3, 3, 2, 1)), spec, Conv())
    np.testing.assert_array_equal(made.tile_index[..., 1].ravel(), [0] * 8 + [1])
    np.testing.assert_array_equal(made.tile_index[..., 0].ravel(), [1] * 7 + [2] * 2)
    np.testing.assert_array_equal(made.tile_index, tile_of((3, 3, 2, 1), 8, spec.row_order))


@pytest.mark.parametrize(
    ("shape", "conv"), [((5, 3), None), ((3, 3, 5, 4), Conv()), ((3, 3, 2, 4), Conv(groups=2))], ids=list(LAYERS)
)
def test_a_layer_of_other_channels_refuses_an_order(shape: tuple[int, ...], conv: Conv | None) -> None:
    wanted = rf"row_order = 'channels .* \(4 of them\)': an order of the layer's {shape[-2]} input channels .*rules="
    with pytest.raises(SpecError, match=wanted):
        plan(np.zeros(shape), SPEC.replace(row_order=ChannelOrder((3, 1, 0, 2))), conv)


def test_the_digest_is_that_of_the_numbers() -> None:
    order = ChannelOrder(np.array([3, 1, 0, 2], np.uint8))
    assert order.digest == "b1db2dadd744c770" and str(order) == "channels b1db2dadd744c770"
    assert {type(c) for c in order.order} == {int}
    assert ChannelOrder([3, 1, 2, 0]).digest != order.digest


KERNELS = {"dense": ((40, 6), None), "conv": ((3, 2, 5, 6), Conv()), "groups": ((3, 3, 5, 8), Conv(groups=2))}
ORDERS = {"channel": "channel", "tap": "tap", "own": ChannelOrder}


@pytest.mark.parametrize("rows", [{"rows": 16}, {"rows": 32, "active_rows": 8}, {"rows": 64}], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_gain_is_at_its_tiles_entries_and_its_gradient_is_their_sum(
    kernel: str, order: str, rows: dict[str, Any]
) -> None:
    """As by looking up each entry's tile, but that no gradient is scattered, row by row."""
    (shape, conv), rng = KERNELS[kernel], np.random.default_rng(0)
    own: Any = ChannelOrder(rng.permutation(shape[-2])) if order == "own" else order
    made = plan(np.ones(shape), CrossbarSpec(adc=Adc(bits=None), row_order=own, **rows), conv)
    gain = jnp.asarray(rng.standard_normal((made.row_tiles, made.columns)), jnp.float32)
    weights = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    np.testing.assert_array_equal(gain_on_kernel(made, gain), gain[made.tile_index])

    def total(spread: Any, gain: jax.Array) -> jax.Array:
        return jnp.sum(spread(gain) * weights)

    found, wanted = (
        jax.grad(partial(total, spread))
        for spread in (partial(gain_on_kernel, made), lambda gain: gain[made.tile_index])
    )
    np.testing.assert_allclose(found(gain), wanted(gain), rtol=1e-5, atol=1e-5)
    assert "scatter" in jax.jit(wanted).lower(gain).as_text()
    if order != "own":
        assert "scatter" not in jax.jit(found).lower(gain).as_text()

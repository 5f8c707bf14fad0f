"""Impossible specifications are refused by name; possible ones are values that hash, compare and can be static."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.crossbar import (
    Adc,
    Cell,
    ChannelOrder,
    Conv,
    CrossbarSpec,
    Faults,
    Gaussian,
    Ideal,
    MiloCurve,
    PcmHermes,
    TableDevice,
    Wires,
)
from xbm_jax.errors import SpecError, XbmError
from xbm_jax.storage import codec

NAN, INF = math.nan, math.inf
BAD_FIELDS: list[tuple[Callable[..., Any], str, Any, str]] = [
    # what is made, its field, an impossible value, a word of what is allowed
    (CrossbarSpec, "rows", 7, "8 to 1024"),
    (CrossbarSpec, "rows", 1025, "8 to 1024"),
    (CrossbarSpec, "rows", 64.0, "integer"),
    (CrossbarSpec, "rows", True, "integer"),
    (CrossbarSpec, "rows", "64", "integer"),
    (CrossbarSpec, "rows", None, "integer"),
    (CrossbarSpec, "cols", 7, "8 to 1024"),
    (CrossbarSpec, "cols", 1025, "8 to 1024"),
    (CrossbarSpec, "cols", NAN, "integer"),
    (CrossbarSpec, "weight_bits", 1, "2 to 8"),
    (CrossbarSpec, "weight_bits", 9, "2 to 8"),
    (CrossbarSpec, "input_bits", 0, "1 to 8"),
    (CrossbarSpec, "input_bits", 9, "1 to 8"),
    (CrossbarSpec, "dac_bits", 0, "1 to 8"),
    (CrossbarSpec, "dac_bits", 9, "1 to 8"),
    (CrossbarSpec, "dac_bits", False, "1 to 8"),
    (CrossbarSpec, "encoding", "offsets", "'differential'"),
    (CrossbarSpec, "encoding", None, "'differential'"),
    (CrossbarSpec, "active_rows", 7, "8 to 64"),
    (CrossbarSpec, "active_rows", 65, "8 to 64"),
    (CrossbarSpec, "active_rows", 24, "a divisor of the 64 rows"),
    (CrossbarSpec, "active_rows", 16.0, "integer"),
    (CrossbarSpec, "active_rows", True, "integer"),
    (CrossbarSpec, "row_order", "channels", "'channel', 'tap'"),
    (CrossbarSpec, "row_order", 0, "'channel', 'tap'"),
    (CrossbarSpec, "row_order", (1, 0), "a ChannelOrder"),
    (ChannelOrder, "order", (0, 0), "0 to 1"),
    (ChannelOrder, "order", (1, 2, 3), "0 to 2"),
    (ChannelOrder, "order", (-1, 0), "each of them once"),
    (ChannelOrder, "order", (), "a permutation"),
    (ChannelOrder, "order", (0.0, 1.0), "integers"),
    (ChannelOrder, "order", (False, True), "integers"),
    (ChannelOrder, "order", "10", "a permutation"),
    (ChannelOrder, "order", {0, 1}, "a permutation"),
    (ChannelOrder, "order", 3, "a permutation"),
    (ChannelOrder, "order", None, "a permutation"),
    (CrossbarSpec, "cell", 7, "a Cell"),
    (CrossbarSpec, "cell", Cell, "a Cell"),
    (CrossbarSpec, "adc", 8, "Adc"),
    (CrossbarSpec, "adc", None, "Adc"),
    (CrossbarSpec, "device", "ideal", "a Device"),
    (CrossbarSpec, "device", Ideal, "a Device"),
    (CrossbarSpec, "faults", 0.1, "a Faults"),
    (Cell, "bits", 0, "1 to 8"),
    (Cell, "bits", 9, "1 to 8"),
    (Cell, "bits", 2.0, "integer"),
    (Cell, "on_off", 1.0, "above 1"),
    (Cell, "on_off", 0.5, "above 1"),
    (Cell, "on_off", -INF, "above 1"),
    (Cell, "on_off", NAN, "above 1"),
    (Cell, "on_off", "inf", "above 1"),
    (Cell, "g_max_siemens", 0.0, "above 0"),
    (Cell, "g_max_siemens", -1e-4, "above 0"),
    (Cell, "g_max_siemens", INF, "finite"),
    (Cell, "g_max_siemens", None, "number"),
    (Adc, "bits", 0, "1 to 16"),
    (Adc, "bits", 17, "1 to 16"),
    (Adc, "bits", 8.0, "integer"),
    (Adc, "bits", True, "integer"),
    (Adc, "range", "min", "'calibrated', 'max', 'granular'"),
    (Adc, "range", None, "'calibrated', 'max', 'granular'"),
    (Adc, "range", 8.0, "'calibrated', 'max', 'granular'"),
    (Adc, "range", (1.0,), "pair"),
    (Adc, "range", (0.0, 1.0, 2.0), "pair"),
    (Adc, "range", (1.0, 1.0), "lo < hi"),
    (Adc, "range", (1.0, -1.0), "lo < hi"),
    (Adc, "range", (0.0, INF), "finite"),
    (Adc, "range", (0.0, 1e300), "at most 1e+30"),
    (Adc, "range", (0.0, 1e-300), "lo < hi"),
    (Cell, "g_max_siemens", 1e39, "at most 1e+30"),
    (Adc, "range", (NAN, 1.0), "finite"),
    (Adc, "range", ("0", 1.0), "number"),
    (Adc, "per", "chip", "'layer', 'tile', 'column'"),
    (Adc, "percentile", 50.0, "above 50"),
    (Adc, "percentile", 100.1, "at most 100"),
    (Adc, "percentile", NAN, "number"),
    (Gaussian, "sigma", -0.1, "at least 0"),
    (Gaussian, "sigma", INF, "finite"),
    (Gaussian, "relative_to", "level", "'g_max', 'g'"),
    (Gaussian, "read_noise", -1e-9, "at least 0"),
    (Gaussian, "read_noise", NAN, "number"),
    (Faults, "stuck_on", -0.1, "at least 0"),
    (Faults, "stuck_on", 1.1, "at most 1"),
    (Faults, "stuck_off", 1.5, "at most 1"),
    (Faults, "stuck_off", "0.1", "number"),
    (Conv, "strides", (0, 1), "at least 1"),
    (Conv, "strides", (1,), "two integers"),
    (Conv, "dilation", (1, 0), "at least 1"),
    (Conv, "dilation", (1, 1, 1), "two integers"),
    (Conv, "strides", (1.5, 1), "integers"),
    (Conv, "strides", 2, "two integers"),
    (Conv, "padding", "same", "'SAME', 'VALID'"),
    (Conv, "padding", (1, 1), "((top, bottom), (left, right))"),
    (Conv, "padding", ((1, 1),), "((top, bottom), (left, right))"),
    (Conv, "padding", ((1, 1), (1, 0.5)), "((top, bottom), (left, right))"),
    (Conv, "groups", 0, "at least 1"),
    (Conv, "groups", 1.0, "integer"),
]


def _reported(value: Any) -> list[Any]:
    """What an error about ``value`` may call it: the whole, or the member that is impossible."""
    return [value, *value] if isinstance(value, tuple) else [value]


@pytest.mark.parametrize(("make", "name", "value", "allowed"), BAD_FIELDS)
def test_impossible_value_is_named(make: Callable[..., Any], name: str, value: Any, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        make(**{name: value})
    error = caught.value
    assert error.field == f"{make.__name__}.{name}"  # type: ignore[attr-defined]
    assert any(error.value is v or error.value == v for v in _reported(value))
    assert allowed in error.allowed
    assert str(error) == f"{error.field} = {error.value!r}: {error.allowed}"


NUMPY_NUMBERS: list[tuple[Any, dict[str, Any]]] = [
    (CrossbarSpec, {"rows": np.int64(64), "cols": np.uint8(32), "input_bits": np.int32(4), "dac_bits": np.int8(2)}),
    (CrossbarSpec, {"active_rows": np.int16(16)}),
    (
        Cell,
        {"bits": np.int64(3), "on_off": np.float32(8), "g_max_siemens": np.float64(1e-4), "max_writes": np.int64(9)},
    ),
    (Adc, {"bits": np.int64(6), "range": (np.float32(-1.5), np.int64(4)), "noise_lsb": np.float32(0.5)}),
    (Adc, {"percentile": np.float64(99.0), "gain_mismatch": np.float32(0.25), "offset_mismatch_lsb": np.int64(1)}),
    (Wires, {"row_ohms": np.float32(0.5), "col_ohms": np.int64(2)}),
    (Gaussian, {"sigma": np.float32(0.25), "read_noise": np.float64(0.5)}),
    (Faults, {"stuck_on": np.float32(0.125), "stuck_off": np.float64(0.25)}),
    (Conv, {"strides": (np.int64(2), 1), "padding": ((np.int64(1), 1), (0, np.uint8(2))), "groups": np.int32(2)}),
    (MiloCurve, {"v_read_volts": np.float32(0.25)}),
    (ChannelOrder, {"order": (np.int64(2), np.uint8(0), 1)}),
    (PcmHermes, {"devices": np.int64(1)}),
    (TableDevice, {"g_siemens": (np.float32(0), np.float64(1)), "mean_siemens": ((0, np.int64(1)),)}),
]


@pytest.mark.parametrize(("make", "fields"), NUMPY_NUMBERS, ids=[make.__name__ for make, _ in NUMPY_NUMBERS])
def test_numbers_of_numpy_are_kept_as_plain_ones(make: Any, fields: dict[str, Any]) -> None:
    """A specification is hashed, compared, and stored as JSON."""
    more: dict[str, Any] = {"sigma_siemens": ((0.0, 0.0),)} if make is TableDevice else {}
    made = make(**fields, **more)
    plain = make(
        **jax.tree.map(lambda number: number.item() if isinstance(number, np.generic) else number, fields), **more
    )
    assert (made, hash(made), repr(made)) == (plain, hash(plain), repr(plain))
    assert codec.decode(json.loads(json.dumps(codec.encode(made)))) == made
    assert {type(leaf) for leaf in jax.tree.leaves(dataclasses.asdict(made))} <= {int, float, bool, str}


@pytest.mark.parametrize("value", [jnp.float32(0.25), np.array(0.25), np.bool_(True), "0.25", 0.25j, 10**400])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"Gaussian.sigma = .*: a finite number at least 0"):
        Gaussian(value)


@pytest.mark.parametrize("value", [jnp.int32(64), np.array(64), np.float64(64), np.bool_(True), "64"])
def test_what_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"CrossbarSpec.rows = .*: an integer from 8 to 1024"):
        CrossbarSpec(rows=value)


@pytest.mark.parametrize(
    ("changes", "name", "value", "allowed"),
    [
        (
            {"weight_bits": 4, "cell": Cell(bits=4)},
            "cell.bits",
            4,
            "at most the 3 bits that a differential 4-bit weight stores",
        ),
        ({"weight_bits": 2}, "cell.bits", 7, "at most the 1 bits"),
        ({"cell": Cell(bits=8)}, "cell.bits", 8, "at most the 7 bits"),
        ({"cols": 13, "cell": Cell(bits=1)}, "cols", 13, "at least 14"),
        ({"encoding": "offset", "weight_bits": 4, "cell": Cell(bits=5)}, "cell.bits", 5, "at most the 4 bits"),
        ({"encoding": "offset", "subtract": "digital"}, "subtract", "digital", "offset encoding has no pairs"),
        ({"cell": Cell(bits=None), "adc": Adc(8, "granular")}, "adc.range", "granular", "analog cells have no levels"),
        ({"input_bits": 4, "dac_bits": 5}, "dac_bits", 5, "1 to 4"),
        ({"cell": Cell(g_max_siemens=1e-50)}, "cell.g_max_siemens", 1e-50, "at least 1e-30 S between"),
    ],
)
def test_fields_that_contradict_each_other(changes: dict[str, Any], name: str, value: Any, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        CrossbarSpec(**changes)
    assert (caught.value.field, caught.value.value) == (f"CrossbarSpec.{name}", value)
    assert allowed in caught.value.allowed


def test_a_cell_is_stuck_at_one_rail_at_most() -> None:
    with pytest.raises(SpecError, match=r"Faults\.stuck_off = 0\.6: .*at most .*0\.5"):
        Faults(stuck_on=0.5, stuck_off=0.6)


@pytest.mark.parametrize(("on", "off"), [(0.9, 0.1), (0.7, 0.3), (0.8, 0.2), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_fault_rates_may_add_up_to_one(on: float, off: float) -> None:
    assert Faults(on, off).stuck_off == off


def test_replace_validates_again() -> None:
    assert CrossbarSpec().replace(rows=8).rows == 8
    with pytest.raises(SpecError, match=r"CrossbarSpec\.rows = 4"):
        CrossbarSpec().replace(rows=4)


def test_errors_are_value_errors() -> None:
    assert issubclass(SpecError, XbmError) and issubclass(XbmError, ValueError)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossbarSpec(rows=8, cols=1024, weight_bits=2, input_bits=1, dac_bits=1, cell=Cell(bits=1)),
        lambda: CrossbarSpec(rows=1024, cols=14, cell=Cell(bits=1), row_order="tap"),
        lambda: CrossbarSpec(adc=Adc(bits=None), device=Gaussian(0.02, "g", 0.01), faults=Faults(0.1, 0.9)),
        lambda: CrossbarSpec(adc=Adc(16, (-3, 4), per="column", percentile=100.0)),
        lambda: Conv((2, 1), ((1, 0), (0, 3)), (1, 2), 4),
        lambda: CrossbarSpec(row_order=ChannelOrder(np.array([1, 2, 0]))),
    ],
)
def test_equal_specs_are_one_value(make: Callable[[], Any]) -> None:
    one, other = make(), make()
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1
    field = dataclasses.fields(one)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, field, 1)


def test_every_field_tells_specs_apart() -> None:
    changes: dict[str, Any] = {
        "rows": 128, "cols": 128, "weight_bits": 7, "input_bits": 7, "dac_bits": 2, "cell": Cell(bits=5),
        "adc": Adc(7), "device": Gaussian(0.01), "faults": Faults(0.1), "row_order": "tap",
        "subtract": "digital", "negative_inputs": "two_pass", "wires": Wires(1.0), "curve": MiloCurve(),
        "active_rows": 32,
    }  # fmt: skip
    base = CrossbarSpec(cell=Cell(bits=6))
    variants = {base, *(base.replace(**{name: value}) for name, value in changes.items())}
    assert len(variants) == 1 + len(changes)
    assert set(changes) | {"encoding"} == {f.name for f in dataclasses.fields(CrossbarSpec)}


def test_a_list_is_taken_for_an_explicit_range() -> None:
    adc = Adc(4, [-1, 2])  # type: ignore[arg-type]
    assert adc.range == (-1.0, 2.0)
    assert hash(adc) == hash(Adc(4, (-1.0, 2.0)))


def test_spec_is_a_static_argument() -> None:
    traces = []

    @partial(jax.jit, static_argnums=0)
    def steps(spec: CrossbarSpec, x: jax.Array) -> jax.Array:
        traces.append(spec)
        return x * spec.max_weight

    for weight_bits in (8, 8, 5):
        spec = CrossbarSpec(weight_bits=weight_bits, cell=Cell(bits=4))
        assert steps(spec, jnp.ones(())) == 2 ** (weight_bits - 1) - 1
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("weight_bits", "cell_bits", "input_bits", "dac_bits", "slices", "cycles"),
    [
        (8, 7, 8, None, 1, 1), (8, 4, 8, 8, 2, 1), (8, 2, 8, 3, 4, 3),
        (8, 1, 8, 1, 7, 8), (5, 3, 7, 2, 2, 4), (2, 1, 1, 1, 1, 1),
    ],
)  # fmt: skip
def test_slices_and_cycles(
    weight_bits: int, cell_bits: int, input_bits: int, dac_bits: int | None, slices: int, cycles: int
) -> None:
    spec = CrossbarSpec(weight_bits=weight_bits, cell=Cell(cell_bits), input_bits=input_bits, dac_bits=dac_bits)
    assert (spec.slices, spec.cycles, spec.bitlines_per_column) == (slices, cycles, 2 * slices)


@pytest.mark.parametrize(("on_off", "g_min"), [(math.inf, 0.0), (4.0, 0.5e-4)])
def test_cell_levels(on_off: float, g_min: float) -> None:
    spec = CrossbarSpec(cell=Cell(bits=3, on_off=on_off, g_max_siemens=2e-4))
    assert (spec.max_level, spec.cell.g_min_siemens) == (7, g_min)
    np.testing.assert_allclose(spec.cell.g_min_siemens + 7 * spec.g_step_siemens, 2e-4, rtol=1e-12)

"""Specs, devices and methods survive JSON; files name classes, they do not import them."""

import json
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.crossbar import Adc, Cell, ChannelOrder, Conv, CrossbarSpec, Device, Faults, Gaussian
from xbm_jax.crossbar.devices.published import PUBLISHED
from xbm_jax.crossbar.devices.tables import FunctionDevice, TableDevice
from xbm_jax.errors import BankError
from xbm_jax.masks import Binary, Column, Filter, Identity, Kernel, Method, Rule, Sigmoid, Weight, methods
from xbm_jax.storage.codec import decode, encode

NOISE = Gaussian(0.1)


@dataclass(frozen=True)
class OwnDevice(Device):
    """What a user may write: nested tuples, an optional field, a device inside."""

    steps: tuple[tuple[float, ...], ...] = ((1.0, 2.0), (3.0,))
    limit: float | None = None
    inner: Device = NOISE


@dataclass(frozen=True)
class OwnRule(Rule):
    depth: int = 2


TABLE = TableDevice((0.0, 1e-5, 1e-4), ((0.0, 1.1e-5, 1e-4), (0.0, 1e-5, 9e-5)), ((0.0,) * 3, (1e-6,) * 3), (1.0, 60.0))

VALUES = {
    **{f"device {name}": device for name, device in PUBLISHED.items()},
    **{f"method {name}": make() for name, make in methods.METHODS.items()},
    **{f"norms {policy}": methods.norm_only(policy) for policy in ("frozen", "affine", "full")},
    "method of one's own": methods.masked("own", Kernel(), Binary(0.1), Sigmoid(beta=3.0), start=0.5, norms="affine"),
    "xbm sigmoid": methods.xbm(estimator="sigmoid"),
    "granularities": (Column(), Filter(), Kernel(), Weight(), Identity()),
    "cell that closes": Cell(on_off=math.inf),
    "cell that leaks": Cell(bits=2, on_off=10.0),
    "adc with a given range": Adc(bits=6, range=(-3.5, 1e4), per="column"),
    "ideal adc": Adc(bits=None),
    "convolution": Conv((2, 1), ((1, 1), (0, 2)), (1, 1), 4),
    "convolution with named padding": Conv((1, 1), "SAME", (1, 1), 1),
    "table": TABLE,
    "own device": OwnDevice(limit=math.inf, inner=OwnDevice()),
    "own rule": Method("own", OwnRule(3)),
    "spec": CrossbarSpec(rows=128, dac_bits=2, device=TABLE, faults=Faults(0.1, 0.2), row_order="tap"),
    "few rows at once": CrossbarSpec(rows=128, active_rows=16),
    "order of channels": CrossbarSpec(row_order=ChannelOrder((3, 1, 0, 2))),
    "numbers": (1, 1.5, -0.0, True, None, "inf", (), ((math.inf, -math.inf),)),
}


def through_json(value):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


@pytest.mark.parametrize("name", VALUES)
def test_round_trip(name):
    value = VALUES[name]
    got = through_json(value)
    assert got == value
    assert type(got) is type(value)
    assert repr(got) == repr(value)  # 1 == 1.0 == True; their texts tell them apart


def test_what_files_of_before_do_not_say_is_not_said_at_its_default():
    """Else a bank of before would be of another chip: they are compared by these texts."""
    assert "active_rows" not in encode(CrossbarSpec())
    assert encode(CrossbarSpec(active_rows=64))["active_rows"] == 64


def test_nan_survives():
    assert math.isnan(through_json((math.nan,))[0])


specs = st.builds(
    CrossbarSpec,
    rows=st.integers(8, 1024),
    cols=st.integers(16, 1024),
    weight_bits=st.just(8),
    input_bits=st.integers(2, 8),
    dac_bits=st.none() | st.integers(1, 2),
    cell=st.builds(Cell, bits=st.integers(1, 7), on_off=st.floats(2.0, 1e6) | st.just(math.inf)),
    adc=st.builds(
        Adc,
        bits=st.none() | st.integers(1, 16),
        range=st.sampled_from(["calibrated", "max", "granular"]) | st.tuples(st.floats(-9e9, -1), st.floats(0, 9e9)),
        percentile=st.floats(51, 100),
    ),
    device=st.sampled_from(list(PUBLISHED.values())) | st.builds(Gaussian, st.floats(0, 1)),
    row_order=st.sampled_from(["channel", "tap"]) | st.builds(ChannelOrder, st.permutations(range(5))),
)


@given(specs)
def test_round_trip_of_any_spec(spec):
    got = through_json(spec)
    assert got == spec
    assert hash(got) == hash(spec)  # so that a loaded chip shares compiled code


def test_an_unknown_class_is_named_and_nothing_is_imported():
    with pytest.raises(BankError, match=r"class = 'system'.*import the module that defines yours"):
        decode({"class": "system", "command": "true"})
    with pytest.raises(BankError, match="class = 'HomeMade'"):
        decode({**encode(CrossbarSpec()), "device": {"class": "HomeMade", "sigma": 1.0}})


@pytest.mark.parametrize("fields", [{"sigma": 0.1, "colour": 3}, {"Sigma": 0.1}])
def test_fields_of_another_version_are_named(fields):
    with pytest.raises(BankError, match="the fields of Gaussian"):
        decode({"class": "Gaussian", **fields})


def test_a_missing_class_name_is_refused():
    with pytest.raises(BankError, match="class = None"):
        decode({"sigma": 0.1})


@pytest.mark.parametrize("value", [FunctionDevice(lambda g, g_max: 0.1 * g), {"a": 1}, 1j, Device])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(BankError, match=r"^spec.*nothing else can be stored"):
        encode(value, "spec")


def test_what_cannot_be_stored_is_named_within_the_whole():
    spec = CrossbarSpec(device=FunctionDevice(program_sigma=lambda g, g_max: 0.1 * g))
    with pytest.raises(BankError, match=r"chip\.conv1\.spec\.device\.program_sigma = .*nothing else can be stored"):
        encode(spec, "chip.conv1.spec")
    with pytest.raises(BankError, match=r"value\[1\] = "):
        encode((1, {"a": 2}))


def test_a_class_of_ones_own_may_not_have_the_name_of_one_of_ours():
    """Neither what is stored of it nor what is stored of ours may come back as the other."""
    own = dataclass(frozen=True)(type("Gaussian", (Device,), {"__annotations__": {"sigma": float}, "sigma": 0.0}))
    with pytest.raises(BankError, match=r"spec\.device = '.*\.Gaussian': a class of another name: Gaussian"):
        encode(CrossbarSpec(device=own()), "spec")
    assert type(through_json(Gaussian(0.1))) is Gaussian


def test_of_two_classes_of_one_name_the_later_is_meant():
    """A notebook's cell that is run again defines its class anew."""
    first, last = (dataclass(frozen=True)(type("Cell2", (Device,), {})) for _ in range(2))
    assert type(through_json(first())) is last


def test_a_class_that_derives_from_none_of_the_bases_is_refused_where_it_is_stored():
    stray = dataclass(frozen=True)(type("Stray", (), {}))
    with pytest.raises(BankError, match=r"spec = '.*\.Stray': a class derived from Adc, "):
        encode(stray(), "spec")

"""The device protocol, the Gaussian device and stuck cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from xbm_jax.crossbar.devices.laws import Device, Faults, Gaussian, Ideal
from xbm_jax.errors import SpecError

N = 100_000
US = 1e-6
TARGETS = (5.0, 10.0, 20.0, 30.0, 40.0)


def check_moments(samples: np.ndarray, mean: float, sigma: float) -> None:
    samples = np.asarray(samples, np.float64)
    assert abs(samples.mean() - mean) < 4 * sigma / math.sqrt(samples.size)
    assert abs(samples.std() - sigma) < 4 * sigma / math.sqrt(2 * samples.size)


@pytest.mark.parametrize(
    ("relative_to", "sigmas"), [("g_max", (0.8, 0.8, 0.8, 0.8, 0.8)), ("g", (0.1, 0.2, 0.4, 0.6, 0.8))]
)
def test_gaussian_moments(relative_to: str, sigmas: tuple[float, ...]) -> None:
    device = Gaussian(sigma=0.02, relative_to=relative_to, read_noise=0.01)  # type: ignore[arg-type]
    target = jnp.broadcast_to(jnp.asarray(TARGETS) * US, (N, 5))
    g = np.asarray(device.program(target, 40 * US, jax.random.key(0))) / US
    for k in range(5):
        check_moments(g[:, k], TARGETS[k], sigmas[k])
    read = device.read_sigma(target[0], 40 * US, 0.0)
    assert read is not None
    np.testing.assert_allclose(np.asarray(read) / US, np.asarray(sigmas) / 2, rtol=1e-5)


def test_gaussian_error_scales_with_g_max_and_is_clipped_at_zero() -> None:
    target, key, device = jnp.linspace(0.0, 40.0, 1_000) * US, jax.random.key(1), Gaussian(sigma=0.3)
    small, large = device.program(target, 40 * US, key), device.program(4 * target, 160 * US, key)
    np.testing.assert_allclose(large, 4 * small, rtol=1e-6)
    assert float(small.min()) == 0.0
    assert 0.3 < float(jnp.mean(small[:20] > 0)) < 0.9  # cells asked for nearly nothing keep their noise


@pytest.mark.parametrize("device", [Ideal(), Device(), Gaussian()])
def test_a_device_without_errors_changes_nothing(device: Device) -> None:
    target, key = jnp.linspace(0.0, 40.0, 9) * US, jax.random.key(2)
    written = device.program(target, 40 * US, key)
    np.testing.assert_array_equal(written, target)
    np.testing.assert_array_equal(device.drift(written, target, 40 * US, 0.0, key), target)
    np.testing.assert_array_equal(device.drift(written, target, 40 * US, 3e7, key), target)
    assert device.read_sigma(written, 40 * US, 3e7) is None


def test_a_users_own_class_needs_only_what_it_changes() -> None:
    @dataclass(frozen=True)
    class Leaky(Device):
        loss: float = 0.1

        def drift(self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: float, key: jax.Array) -> jax.Array:
            return g * jnp.exp(-self.loss * t_seconds)

    device, g = Leaky(loss=0.5), jnp.ones(3) * US
    np.testing.assert_array_equal(device.program(g, US, jax.random.key(0)), g)
    np.testing.assert_allclose(device.drift(g, g, US, 2.0, jax.random.key(0)), 0.36787944 * g, rtol=1e-6)


@pytest.mark.parametrize(("on", "off"), [(0.01, 0.0), (0.0, 0.01), (0.001, 0.001), (0.1, 0.1), (0.3, 0.2), (0.9, 0.1)])
def test_stuck_cells_come_at_exactly_the_asked_rates(on: float, off: float) -> None:
    cells = 1_000_000
    g = Faults(stuck_on=on, stuck_off=off).apply(jnp.full(cells, 20 * US), 1 * US, 40 * US, jax.random.key(3))
    values = np.round(np.asarray(g) / US).astype(int)
    assert set(values) <= {1, 20, 40}
    for rate, value in ((on, 40), (off, 1)):
        error = 4 * math.sqrt(rate * (1 - rate) / cells)
        assert abs(np.mean(values == value) - rate) <= error


@hypothesis.given(on=st.floats(0, 1), share=st.floats(0, 1), seed=st.integers(0, 2**31 - 1))
def test_stuck_cells_stand_at_a_rail_and_the_others_are_untouched(on: float, share: float, seed: int) -> None:
    g = jnp.linspace(2.0, 39.0, 500) * US
    faults, key = Faults(stuck_on=on, stuck_off=share * (1 - on)), jax.random.key(seed)
    stuck = np.asarray(faults.apply(g, 1 * US, 40 * US, key))
    low, high = np.float32(1 * US), np.float32(40 * US)
    np.testing.assert_array_equal(np.where((stuck == low) | (stuck == high), np.asarray(g), stuck), g)
    # Which cells are stuck is the key's doing alone.
    other = np.asarray(faults.apply(0.5 * g + 3e-7, 1 * US, 40 * US, key))
    np.testing.assert_array_equal(stuck == low, other == low)
    np.testing.assert_array_equal(stuck == high, other == high)


def test_all_and_no_cells_stuck() -> None:
    g = jnp.linspace(2.0, 39.0, 1_000) * US
    key = jax.random.key(4)
    assert bool(jnp.all(Faults(stuck_on=1.0).apply(g, 1 * US, 40 * US, key) == jnp.float32(40 * US)))
    assert bool(jnp.all(Faults(stuck_off=1.0).apply(g, 1 * US, 40 * US, key) == jnp.float32(1 * US)))
    np.testing.assert_array_equal(Faults().apply(g, 1 * US, 40 * US, key), g)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(sigma=-0.1), "Gaussian.sigma = -0.1: a finite number at least 0"),
        (lambda: Gaussian(sigma=math.nan), "Gaussian.sigma = nan: a finite number at least 0"),
        (lambda: Gaussian(sigma="False"), "Gaussian.sigma = 'False': a finite number at least 0"),  # type: ignore[arg-type]
        (lambda: Gaussian(sigma=False), "Gaussian.sigma = False: a finite number at least 0"),
        (lambda: Gaussian(read_noise=math.inf), "Gaussian.read_noise = inf: a finite number at least 0"),
        (
            lambda: Gaussian(relative_to="False"),  # type: ignore[arg-type]
            "Gaussian.relative_to = 'False': one of 'g_max', 'g'",
        ),
        (lambda: Faults(stuck_on=1.1), "Faults.stuck_on = 1.1: a finite number at least 0 and at most 1"),
        (lambda: Faults(stuck_off=-0.1), "Faults.stuck_off = -0.1: a finite number at least 0 and at most 1"),
        (lambda: Faults(stuck_on=0.9, stuck_off=0.2), "Faults.stuck_off = 0.2: at most 1 - stuck_on = 0.1"),
        (lambda: Faults(stuck_on="False"), "Faults.stuck_on = 'False': a finite number"),  # type: ignore[arg-type]
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError) as error:
        make()
    assert str(error.value).startswith(message)

"""A read that is observed: the answer is the read's and the counts are those of its conversions, from the same sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from crossbar.jaxprs import products, traced
from crossbar.test_kept import CASES, SAME, given, quick_jit
from xbm_jax.crossbar import Adc, read
from xbm_jax.crossbar.primitives.platforms import here
from xbm_jax.crossbar.reading.observe import conversions, observed_read

NOISY = {"noise of converters", "read noise"}
SILENT = [name for name in CASES if name not in NOISY]
COUNTED = jnp.asarray([1.0] * 6 + [0.0] * 2)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", slow_but(["slices and cycles", "offset encoding", "mismatch"], SILENT))
def test_answer_and_counts_are_those_of_each_alone(name: str, masked: bool) -> None:
    tiles, x, gain = given(CASES[name])
    gain = gain if masked else None
    found = quick_jit(observed_read)(tiles, x, gain, COUNTED)
    answer, wanted = quick_jit(lambda: (read(tiles, x, gain), conversions(tiles, x, gain, COUNTED)))()
    np.testing.assert_allclose(found[0], answer, rtol=1e-5, atol=1e-5 * float(jnp.abs(answer).max()))
    np.testing.assert_allclose(found[1].clipped, wanted.clipped, rtol=1e-6)
    np.testing.assert_array_equal(found[1].met, wanted.met)
    assert found[1].met.any()


def test_no_product_is_computed_twice() -> None:
    tiles, x, gain = given({})
    both = traced(observed_read, tiles, x, gain, COUNTED)
    assert len(list(products(both.jaxpr))) == tiles.plan.row_tiles


@pytest.mark.parametrize("name", sorted(NOISY))
def test_drawn_noise_is_in_the_answer_alone(name: str) -> None:
    tiles, x, gain = given(CASES[name])
    assert observed_read(tiles, x, gain, COUNTED) is None


def test_neither_are_lines_folded_reads_nor_loops_observed() -> None:
    tiles, x, gain = given({})
    assert observed_read(tiles, x, jnp.stack([gain, gain], axis=1), COUNTED) is None
    for tiles, x, gain in (given({"adc": Adc(None)}), given({}, shape=(64, 4), conv=None)):
        assert observed_read(tiles, x, gain, COUNTED) is None


def test_here_is_one_form_where_there_is_a_cpu_alone() -> None:
    tiles, x, gain = given({}, (3, 3, 6, 4), SAME, batch=16)
    assert jax.default_backend() == "cpu"
    chosen = "platform_index"
    assert chosen in str(jax.make_jaxpr(read)(tiles, x, gain))
    with here():
        assert chosen not in str(jax.make_jaxpr(read)(tiles, x, gain))

"""Keys of all of JAX's generators, and old-style ones, program and read; anything else is refused by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from xbm_jax.crossbar import PUBLISHED, Adc, Cell, CrossbarSpec, Tiles, at_time, plan, program, read, reprogram
from xbm_jax.errors import SpecError
from xbm_jax.streams import checked_key

IMPLS = ("threefry2x32", "rbg", "unsafe_rbg")
SPEC = CrossbarSpec(rows=8, cell=Cell(bits=7, on_off=100.0), adc=Adc(bits=None), device=PUBLISHED["pcm_joshi"])
RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.standard_normal((20, 4)), jnp.float32)
X = jnp.asarray(RNG.standard_normal((3, 20)), jnp.float32)


def tiles_of(key: jax.Array, adc_bits: int | None = None) -> Tiles:
    spec = SPEC if adc_bits is None else SPEC.replace(adc=Adc(bits=adc_bits, range=(-2e4, 2e4), noise_lsb=0.5))
    return program(KERNEL, plan(KERNEL, spec, signed_inputs=True), key, input_scale=0.02)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_chip_draws_with_the_generator_of_its_key_whatever_the_default_is(impl):
    tiles = tiles_of(jax.random.key(0, impl=impl))
    assert tiles.key == jax.random.key(0, impl=impl)
    aged, rewritten = at_time(tiles, 3600.0), reprogram(tiles, KERNEL + 0.1)
    with jax.default_prng_impl("rbg" if impl == "threefry2x32" else "threefry2x32"):
        assert tiles.key == jax.random.key(0, impl=impl)
        np.testing.assert_array_equal(at_time(tiles, 3600.0).conductance, aged.conductance)
        np.testing.assert_array_equal(reprogram(tiles, KERNEL + 0.1).conductance, rewritten.conductance)
    assert not np.array_equal(aged.conductance, tiles.conductance)


@pytest.mark.parametrize(("impl", "bits"), slow_but([("rbg", 8)], [("rbg", None), ("rbg", 8), ("unsafe_rbg", None)]))
def test_reads_draw_with_the_generator_of_their_own_key(impl, bits):
    tiles, keys = tiles_of(jax.random.key(0), bits), [jax.random.key(i, impl=impl) for i in range(2)]
    gain = jnp.ones((tiles.plan.row_tiles, 4))

    @jax.jit
    def answer(x, gain, key):
        return jax.value_and_grad(lambda x, g: jnp.sum(read(tiles, x, g, key) ** 2), (0, 1))(x, gain)

    first, again, other = (answer(X, gain, key) for key in (keys[0], keys[0], keys[1]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0] != other[0]
    assert jax.vmap(answer, (None, None, 0))(X, gain, jnp.stack(keys))[0].shape == (2,)


def test_generators_differ():
    one, other = (tiles_of(jax.random.key(0, impl=impl)).conductance for impl in IMPLS[:2])
    assert not np.array_equal(one, other)


def test_an_old_style_key_is_one_of_the_default_generator():
    typed, raw = tiles_of(jax.random.key(3)), tiles_of(jax.random.PRNGKey(3))
    assert typed.key == raw.key
    np.testing.assert_array_equal(typed.conductance, raw.conductance)
    np.testing.assert_array_equal(read(typed, X, key=jax.random.key(1)), read(typed, X, key=jax.random.PRNGKey(1)))
    with jax.default_prng_impl("rbg"):
        assert checked_key(jax.random.PRNGKey(3)) == jax.random.key(3)
        with pytest.raises(SpecError, match="key = "):
            checked_key(np.zeros(2, np.uint32))


@pytest.mark.parametrize(
    "key",
    [0, None, "key", 1.5, np.zeros(3, np.uint32), np.zeros(2, np.int32), jax.random.split(jax.random.key(0))],
    ids=["int", "none", "text", "float", "three words", "signed words", "two keys"],
)
def test_what_is_no_key_is_refused_by_name(key):
    with pytest.raises(SpecError, match=r"(?s)^key = .*: one key of a generator that JAX knows by name"):
        tiles_of(key)
    if key is not None:
        with pytest.raises(SpecError, match=r"^key = "):
            read(tiles_of(jax.random.key(0)), X, key=key)

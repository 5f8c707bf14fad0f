"""Cells that can be written so often and no more, and what rewriting does to the rest of an aged chip."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, PcmJoshi, Tiles, at_time, plan, program, reprogram, worn_cells
from xbm_jax.errors import SpecError

SPEC = CrossbarSpec(rows=8, weight_bits=4, cell=Cell(bits=3, max_writes=2), adc=Adc(bits=None))
rewrite = jax.jit(reprogram)
WEIGHTS = jnp.asarray([[7.0, -7.0], [3.0, 0.0], [0.0, 5.0]])


def built(spec: CrossbarSpec) -> Tiles:
    return program(WEIGHTS, plan(WEIGHTS, spec), jax.random.key(0), weight_scale=jnp.ones(2), input_scale=1.0)


def test_every_write_counts_and_a_worn_cell_stays() -> None:
    tiles = built(SPEC)
    assert tiles.writes is not None and (np.asarray(tiles.writes) == 1).all() and worn_cells(tiles) == 0
    once = rewrite(tiles, WEIGHTS.at[0, 0].set(2.0))
    assert once.writes is not None
    assert np.asarray(once.writes)[:, 0, 0, 0].tolist() == [2, 1]  # its positive cell alone held another level
    assert int(np.sum(np.asarray(once.writes) == 2)) == worn_cells(once) == 1
    # The worn positive cell keeps level 2; the others, written once, can still be written.
    again = rewrite(once, WEIGHTS.at[0, 0].set(5.0).at[1, 1].set(-4.0))
    assert np.asarray(again.levels)[:, 0, 0, 0].tolist() == [2, 0]
    assert np.asarray(again.levels)[:, 0, 1, 1].tolist() == [0, 4]
    np.testing.assert_array_equal(again.conductance[0, 0, 0, 0], once.conductance[0, 0, 0, 0])
    assert worn_cells(again) == 2


def test_an_unchanged_cell_does_not_wear() -> None:
    tiles = built(SPEC)
    for _ in range(5):
        tiles = rewrite(tiles, WEIGHTS)
    assert tiles.writes is not None and (np.asarray(tiles.writes) == 1).all()


def test_wear_is_traceable() -> None:
    weights = jnp.stack([WEIGHTS, -WEIGHTS])
    worn = jax.jit(jax.vmap(lambda w: worn_cells(reprogram(built(SPEC), w))))(weights)
    assert worn.tolist() == [0, 8]  # four weights are not zero; both cells of each changed level


def test_without_a_limit_nothing_is_counted() -> None:
    tiles = built(SPEC.replace(cell=Cell(bits=3)))
    assert tiles.writes is None and worn_cells(rewrite(tiles, -WEIGHTS)) == 0


def test_an_impossible_limit_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        Cell(max_writes=0)
    assert caught.value.field == "Cell.max_writes"


def test_cells_that_stay_keep_the_noise_of_their_age() -> None:
    """PCM reads more noisily with time; rewriting one weight makes its two cells young, and no others."""
    spec = SPEC.replace(cell=Cell(bits=3, on_off=10.0, g_max_siemens=25e-6), device=PcmJoshi())
    aged = jax.jit(at_time)(built(spec), 1e6)
    fresh = built(spec)
    assert aged.read_variance is not None and fresh.read_variance is not None
    rewritten = rewrite(aged, WEIGHTS.at[0, 0].set(-6.0))
    assert rewritten.read_variance is not None
    untouched = np.ones(WEIGHTS.shape, bool)
    untouched[0, 0] = False
    np.testing.assert_array_equal(rewritten.read_variance[0][untouched], aged.read_variance[0][untouched])
    assert rewritten.read_variance[0, 0, 0] != aged.read_variance[0, 0, 0]
    assert (np.asarray(aged.read_variance) != np.asarray(fresh.read_variance)).all()

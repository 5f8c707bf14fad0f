"""What is drawn for one purpose tells nothing about another: cells, time, converters and reads of one key."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, Faults, Gaussian, Tiles, plan, program
from xbm_jax.crossbar.reading import sums
from xbm_jax.streams import Cells, stream

COLUMNS = 2048
SPEC = CrossbarSpec(rows=8, cell=Cell(bits=4), adc=Adc(8, (-100.0, 155.0), gain_mismatch=0.01, offset_mismatch_lsb=0.5))


def correlations(draws: Mapping[str, Any]) -> dict[str, float]:
    """Between every two, in standard errors."""
    flat = {name: np.asarray(values, np.float64).ravel()[:COLUMNS] for name, values in draws.items()}
    pairs = itertools.combinations(flat, 2)
    return {f"{a}, {b}": np.corrcoef(flat[a], flat[b])[0, 1] * np.sqrt(COLUMNS) for a, b in pairs}


def built(spec: CrossbarSpec, rows: int) -> Tiles:
    kernel = jnp.ones((rows, COLUMNS))
    return program(kernel, plan(np.ones(kernel.shape), spec), jax.random.key(3), input_scale=1.0)


def test_what_a_chip_is_born_with() -> None:
    """Programming error, stuck cells, drift, and two errors of its converters, of one layer's key."""
    silent = built(SPEC, 1)
    error = built(SPEC.replace(device=Gaussian(0.01)), 1)
    stuck = built(SPEC.replace(faults=Faults(0.5, 0.5)), 1)
    assert silent.mismatch is not None
    drift = jax.random.normal(stream(silent.key, Cells.DRIFT), silent.conductance.shape)
    draws = {
        "error": error.conductance[0],
        "faults": stuck.conductance[0],
        "drift": drift[0],
        "gain mismatch": silent.mismatch.gain,
        "offset mismatch": silent.mismatch.offset_lsb,
    }
    found = correlations(draws)
    assert len(found) == 10
    assert max(map(abs, found.values())) < 4.5, found


def test_what_a_read_draws() -> None:
    """Cells and converters, in each of two tiles and two cycles of one read; and in another layer's read."""
    spec = SPEC.replace(dac_bits=4, adc=Adc(8, (-100.0, 155.0), noise_lsb=1.0), device=Gaussian(read_noise=0.01))
    tiles = built(spec, 16)
    assert tiles.plan.row_tiles == 2 and len(tiles.plan.cycle_weights) == 2
    codes, draws = jnp.full((1, 16), 17.0), {}
    for name, key in (("one", jax.random.key(3)), ("other", jax.random.fold_in(jax.random.key(3), 1))):
        noisy = sums.Converters(tiles.adc, None, tiles.read_variance, None, jax.random.key_data(key))
        loud = sums.column_sums(tiles.plan, codes, tiles.effective, noisy)
        quiet = sums.column_sums(tiles.plan, codes, tiles.effective)
        for (t, j, with_noise), (_, _, without) in zip(loud, quiet, strict=True):
            draws[f"cells {name} {t} {j}"] = with_noise - without
            draws[f"converters {name} {t} {j}"] = sums.converter_noise(tiles.plan, noisy, t, j, without)
    assert tiles.mismatch is None
    draws["error"] = built(SPEC.replace(device=Gaussian(0.01)), 1).conductance[0]
    found = correlations(draws)
    assert len(found) == 17 * 16 // 2
    assert max(map(abs, found.values())) < 4.5, found

"""Which random numbers are drawn for what: the one place that names the streams of a key and of a seed.

A stream is a key (or a seed), a purpose and the numbers that tell its draws apart (a layer, a step, a batch). Two
purposes never share a stream, nor do two numbers of one purpose; equal keys and numbers give equal bits.

The values are part of what is stored: a chip keeps its cells' keys and draws drift and faults from them years later.
A purpose may be added, never renumbered, and stands in exactly one place of the package (a test counts).
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.errors import DataError, SpecError

__all__ = ["Cells", "Command", "Host", "Noise", "Run", "Step", "checked_key", "generator", "named", "stream"]


class Cells(IntEnum):
    """Of a layer's own key, which a stored chip keeps."""

    ERROR = 0
    FAULTS = 1
    DRIFT = 2
    MISMATCH = 3


class Run(IntEnum):
    """Of the key of one task that is learned."""

    INITIAL = 0
    SEED = 2
    STEP = 3
    CHOICE = 4
    FEATURES = 5
    VALIDATION = 6
    TEST = 7
    PROBE = 8


class Step(IntEnum):
    """Of the key of one training step."""

    READ = 0
    CHIP = 1


class Noise(IntEnum):
    """Of the key of one layer's read, drawn anew for each tile and cycle: both share one numbering."""

    CELLS = 0
    CONVERTERS = 1


class Command(IntEnum):
    """Of the one seed of a command. The chip's draws are those of the seed's own key, as they always were."""

    TASK = 1
    READ = 2
    QUICKSTART = 3
    COST = 4
    KEPT = 5
    PREDICT = 6


class Host(IntEnum):
    """Of a seed, for what is drawn with NumPy."""

    TEST_SPLIT = 1
    VALIDATION_SPLIT = 2
    SAMPLE = 3
    ORDER = 4
    AUGMENT = 5
    CALIBRATION = 6


def checked_key(key: Any, field: str = "key") -> jax.Array:
    """``key`` as JAX's typed keys are; old-style ones, uint32 words alone, belong to the default implementation.

    Raises:
        SpecError: anything but one key.
    """
    if isinstance(key, (jax.Array, np.ndarray)):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
        if typed and isinstance(jax.random.key_impl(key), str):
            return key  # type: ignore[return-value]  # NumPy has no such dtype
        if key.dtype == np.uint32 and key.shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(key))
    raise SpecError(field, key, "one key of a generator that JAX knows by name: jax.random.key(seed)")


def stream(key: jax.Array, *numbers: int | jax.Array) -> jax.Array:
    """The key of ``numbers`` (first a purpose, then what tells its draws apart) below ``key``: one fold each."""
    for number in numbers:
        key = _folded(key, np.uint32(number) if isinstance(number, int) else number)
    return key


# One call of a compiled function: operation by operation a fold takes as long as all else between two training steps.
_folded = jax.jit(jax.random.fold_in, inline=True)


def named(key: jax.Array, name: str) -> jax.Array:
    """The key of a name (a layer's path, say) below ``key``, whatever other names there are."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def generator(seed: int, purpose: Host, *numbers: int) -> np.random.Generator:
    """NumPy's Philox for ``numbers`` of a purpose of ``seed``: the same on every platform.

    The numbers are the seed sequence's spawn key: as part of its entropy, trailing zeros would not count.

    Raises:
        DataError: a seed or number below zero.
    """
    if min(seed, *numbers, 0) < 0:
        raise DataError("seed", (seed, *numbers), "whole numbers from 0")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose, *numbers))))

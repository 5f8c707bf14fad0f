"""Streams of random numbers: no two purposes share one, and no purpose is used in two places."""

from __future__ import annotations

import re
from collections import Counter
from enum import IntEnum
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax import streams
from xbm_jax.errors import DataError
from xbm_jax.streams import Cells, Host, generator, named, stream

SRC = Path(streams.__file__).parent
PURPOSES = (streams.Cells, streams.Run, streams.Step, streams.Noise, streams.Command, streams.Host)
NUMBERS = st.lists(st.integers(0, 9), max_size=3)


def bits(key: jax.Array) -> bytes:
    return np.asarray(jax.random.key_data(key)).tobytes()


@given(st.integers(0, 2**32 - 1), NUMBERS, NUMBERS)
def test_other_numbers_are_another_stream_of_a_seed(seed, first, second):
    drawn = [generator(seed, Host.ORDER, *numbers).integers(0, 2**62, 2).tolist() for numbers in (first, second)]
    assert (drawn[0] == drawn[1]) == (first == second)


def test_purposes_of_a_seed_are_apart():
    first = {purpose: generator(0, purpose).integers(0, 2**62) for purpose in Host}
    assert len(set(first.values())) == len(Host)


def test_purposes_of_a_key_are_apart_and_named_layers_too():
    key = jax.random.key(0)
    found = {bits(stream(key, purpose, i)) for purpose in streams.Run for i in range(3)}
    assert len(found) == 3 * len(streams.Run)
    assert bits(named(key, "conv1")) != bits(named(key, "conv2"))


def test_a_stored_chips_streams_are_those_that_it_was_written_with():
    key = jax.random.key(5)
    error, faults = jax.random.split(key)
    assert bits(stream(key, Cells.ERROR)) == bits(error)
    assert bits(stream(key, Cells.FAULTS)) == bits(faults)
    assert bits(stream(key, Cells.DRIFT)) == bits(jax.random.fold_in(key, 2))


@pytest.mark.parametrize("numbers", [(-1,), (0, -1)])
def test_a_number_below_zero_is_refused(numbers):
    with pytest.raises(DataError, match="whole numbers from 0"):
        generator(numbers[0], Host.ORDER, *numbers[1:])


def uses(purposes: type[IntEnum]) -> Counter[str]:
    """How often the package names each purpose outside of the module that defines it."""
    text = "\n".join(path.read_text() for path in SRC.rglob("*.py") if path.name != "streams.py")
    return Counter(re.findall(rf"\b(?:streams\.)?{purposes.__name__}\.([A-Z_]+)\b", text))


@pytest.mark.parametrize("purposes", PURPOSES, ids=lambda purposes: purposes.__name__)
def test_every_purpose_stands_in_one_place(purposes):
    assert uses(purposes) == dict.fromkeys((purpose.name for purpose in purposes), 1)

"""Codes of any width to bits and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.errors import BankError
from xbm_jax.storage.packing import pack, packed_bytes, unpack

widths_and_codes = st.integers(1, 32).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=70))
)


@given(widths_and_codes)
def test_unpack_undoes_pack_in_the_fewest_bytes(case):
    bits, codes = case
    packed = pack(np.array(codes, np.uint32), bits)
    assert packed.dtype == np.uint8
    assert packed.size == packed_bytes(bits, len(codes)) == (bits * len(codes) + 7) // 8
    unpacked = unpack(packed, bits, len(codes))
    assert unpacked.dtype == (np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    assert unpacked.tolist() == codes


@pytest.mark.parametrize(
    ("codes", "bits", "wanted"),
    [
        ([1, 0, 1], 1, [0b1010_0000]),
        ([1] * 9, 1, [0xFF, 0x80]),
        ([3, 0, 2], 2, [0b1100_1000]),
        ([5, 2, 7], 3, [0b1010_1011, 0b1000_0000]),
        ([0xAB, 0x01], 8, [0xAB, 0x01]),
    ],
)
def test_first_code_stands_in_the_highest_bits(codes, bits, wanted):
    assert pack(np.array(codes), bits).tolist() == wanted


@given(widths_and_codes.filter(lambda case: case[1]), st.sampled_from([-1, 1]))
def test_truncated_and_overlong_bytes_are_refused(case, by):
    bits, codes = case
    packed = pack(np.array(codes), bits)
    wrong = packed[:-1] if by < 0 else np.append(packed, np.uint8(0))
    with pytest.raises(BankError, match=rf"packed.shape = \({packed.size + by},\).*\({packed.size},\)"):
        unpack(wrong, bits, len(codes))


@pytest.mark.parametrize(("codes", "bits"), [([2], 1), ([0, -1], 1), ([0, 8], 3), ([256], 8)])
def test_codes_beyond_the_width_are_refused(codes, bits):
    with pytest.raises(BankError, match=f"codes from 0 to {2**bits - 1}"):
        pack(np.array(codes), bits)

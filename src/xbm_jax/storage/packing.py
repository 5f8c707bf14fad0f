"""Mask codes of any width, packed to bits."""

from __future__ import annotations

import numpy as np

from xbm_jax.errors import BankError

__all__ = ["pack", "packed_bytes", "unpack"]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes 0 .. 2**bits - 1 to bytes, ``bits`` each, first code in the highest bits; the last byte is zero-padded."""
    flat = np.asarray(codes).reshape(-1)
    if flat.size and (flat.min() < 0 or flat.max() >= 2**bits):
        raise BankError("codes", (int(flat.min()), int(flat.max())), f"codes from 0 to {2**bits - 1}")
    planes = (flat.astype(np.int64)[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(-1))


def unpack(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Undo :func:`pack`: the first ``count`` codes, in the narrowest of uint8, uint16 and uint32.

    Raises:
        BankError: too few or too many bytes.
    """
    if data.shape != (packed_bytes(bits, count),):
        raise BankError("packed.shape", data.shape, f"({packed_bytes(bits, count)},): {count} codes of {bits} bits")
    planes = np.unpackbits(data, count=bits * count).reshape(count, bits)
    codes = np.zeros(count, np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    for plane in planes.T:
        codes = (codes << 1) | plane
    return codes


def packed_bytes(bits: int, count: int) -> int:
    """Bytes of ``count`` packed codes."""
    return -(-bits * count // 8)

"""Where an array holds the bits of a column mask: one word a row tile and plane, one bit a physical bit line.

Column n of a layer (its group's column m) stands in array ``m // C`` of its group, C columns an array, as column
``c = m % C`` of it. Of S slices and P polarities (P = 2 for pairs, the positive line first) it takes the bit lines

    (c * S + s) * P + p,        0 <= s < S,  0 <= p < P

the order in which resistive wires are computed, too. A code of several bits has a word for each of its bits, plane k
of weight ``2**k``. All bit lines of a column hold its code; of a mask by line each polarity holds its own, in all
slices. Bit lines that no column stands on hold 0, and so does a row tile that a layer's last arrays have no rows for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbm_jax.crossbar import Plan
from xbm_jax.errors import BankError

__all__ = ["MaskWords", "bit_lines", "codes_of", "hex_word", "mask_words", "word_bits"]


@dataclass(frozen=True, eq=False)
class MaskWords:
    """The mask words of one layer.

    Attributes:
        path: the layer.
        plan: its geometry.
        words: uint8 [above, beside, tiles, planes, cols] of 0 and 1: arrays above each other and beside each other, row
            tiles of an array in the order in which they are read, bits of a code from the least significant one, bit
            lines.
        level: the 16 bits (float16) of what an off column counts, where a method learns that
            (:class:`xbm_jax.masks.Levels`). It is a number of the layer's digital part, not of an array.
    """

    path: str
    plan: Plan
    words: np.ndarray
    level: int | None = None

    @property
    def arrays(self) -> tuple[int, int]:
        """Arrays above each other and beside each other."""
        return self.words.shape[0], self.words.shape[1]

    @property
    def tiles(self) -> int:
        """Row tiles of an array, one word (of each plane) for each."""
        return self.words.shape[2]

    @property
    def planes(self) -> int:
        """Bits of a code."""
        return self.words.shape[3]

    @property
    def bits(self) -> int:
        """Bits that the layer's arrays hold: every word in full, unused bit lines too."""
        return self.words.size


def bit_lines(plan: Plan) -> np.ndarray:
    """Physical bit line of each column's cells in its array, int [N, S, P]; module docstring."""
    spec = plan.spec
    column = np.arange(plan.columns) % (plan.columns // plan.groups) % plan.columns_per_array
    slices, polarities = np.arange(spec.slices)[:, None], np.arange(spec.polarities)
    return (column[:, None, None] * spec.slices + slices) * spec.polarities + polarities


def mask_words(plan: Plan, codes: np.ndarray, planes: int) -> np.ndarray:
    """Codes of columns [T, N], or of lines [T, 2, N], as words uint8 [above, beside, tiles, planes, cols]."""
    words = np.zeros((*plan.array_grid, plan.tiles_per_array, planes, plan.spec.cols), np.uint8)
    by_polarity = codes[:, None] if codes.ndim == 2 else codes
    bits = by_polarity.swapaxes(1, 2)[:, :, None, :, None] >> np.arange(planes) & 1  # [T, N, 1, 1 or 2, planes]
    words[_places(plan)] = bits
    return words


def codes_of(plan: Plan, words: np.ndarray, *, by_line: bool) -> np.ndarray:
    """Undo :func:`mask_words`; of bit lines that hold the same code the first is taken."""
    bits = words[_places(plan)][:, :, 0].astype(np.int64)  # [T, N, P, planes]
    codes = (bits << np.arange(words.shape[3])).sum(-1).swapaxes(1, 2)
    return codes if by_line else codes[:, 0]


def _places(plan: Plan) -> tuple[np.ndarray | slice, ...]:
    """Index of words that gives every column's cells in every row tile: [T, N, S, P, planes]."""
    tile, column = np.arange(plan.row_tiles)[:, None, None, None], (slice(None), None, None)
    within, lines = tile % plan.tiles_per_array, bit_lines(plan)
    return plan.array_of_tile[tile], plan.array_of_column[column], within, slice(None), lines


def hex_word(bits: np.ndarray) -> str:
    """A word as Verilog's ``$readmemh`` reads it: ceil(cols / 4) digits, bit line 0 the least significant bit."""
    return np.packbits(bits, bitorder="little")[::-1].tobytes().hex()[(bits.size // -4) :]


def word_bits(text: str, cols: int) -> np.ndarray:
    """Undo :func:`hex_word`: uint8 [cols].

    Raises:
        BankError: not ``ceil(cols / 4)`` hexadecimal digits, or a bit beyond the last bit line.
    """
    digits = -(cols // -4)
    allowed = f"{digits} hexadecimal digits of a word of {cols} bits"
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise BankError("word", text, allowed)
    value = np.frombuffer(bytes.fromhex(text.zfill(digits + digits % 2))[::-1], np.uint8)
    bits = np.unpackbits(value, bitorder="little")
    if bits[cols:].any():
        raise BankError("word", text, allowed)
    return bits[:cols]

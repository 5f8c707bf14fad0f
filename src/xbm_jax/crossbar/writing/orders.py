"""In which order a kernel's rows stand on word lines: which of them share a tile, and so a mask bit.

    "channel":            row = (c * kh + i) * kw + j                  c: input channel, (i, j): tap
    "tap":                row = (i * kw + j) * channels + c
    ChannelOrder(order):  row = (p[c] * kh + i) * kw + j               p[order[k]] = k

Kernels, cells and masks of weights keep their own layout whatever the order; it says where on an array each row is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xbm_jax.errors import SpecError

__all__ = ["ChannelOrder", "RowOrder", "check_order_fits", "check_row_order", "on_kernel", "row_index"]


@dataclass(frozen=True)
class ChannelOrder:
    """Rows by input channel, the channels in an order of their own: (order[0], kh, kw), (order[1], kh, kw), ...

    Args:
        order: a permutation of a layer's input channels 0 .. n-1 (of one group of a grouped convolution, all of whose
            groups stand alike); a dense kernel's channels are its inputs. Any sequence of integers, NumPy's too; kept
            as a tuple of plain ones.

    Raises:
        SpecError: not a permutation of 0 .. n-1.
    """

    order: tuple[int, ...]

    if TYPE_CHECKING:  # what may be given is more than what is kept

        def __init__(self, order: Sequence[int] | np.ndarray) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", _permutation(self.order))

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the order, its numbers in decimal with commas between them."""
        return hashlib.sha256(",".join(map(str, self.order)).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """A name short enough for errors and cards."""
        return f"channels {self.digest}"


RowOrder = Literal["channel", "tap"] | ChannelOrder


def _permutation(order: Any) -> tuple[int, ...]:
    allowed = "a permutation of the integers 0 to n-1, each of them once"
    listed: list[Any] = list(order) if isinstance(order, Sequence | np.ndarray) and not isinstance(order, str) else []
    if not listed or any(isinstance(c, bool) or not isinstance(c, Integral) for c in listed):
        raise SpecError("ChannelOrder.order", order, allowed)
    plain = tuple(int(c) for c in listed)
    if sorted(plain) != list(range(len(plain))):
        raise SpecError("ChannelOrder.order", order, f"{allowed}, here 0 to {len(plain) - 1}")
    return plain


def check_row_order(field: str, value: Any) -> None:
    """Raise SpecError unless ``value`` is a row order."""
    if not isinstance(value, ChannelOrder) and not (isinstance(value, str) and value in ("channel", "tap")):
        raise SpecError(field, value, "one of 'channel', 'tap', or a ChannelOrder")


def check_order_fits(field: str, row_order: RowOrder, kernel_shape: tuple[int, ...]) -> None:
    """Raise SpecError unless ``row_order`` is one of this kernel's input channels."""
    channels = kernel_shape[-2]
    if isinstance(row_order, ChannelOrder) and len(row_order.order) != channels:
        allowed = (
            f"an order of the layer's {channels} input channels (of one group). Layers differ in channels: give each "
            "its own by program(..., rules={path: spec.replace(row_order=...)})"
        )
        raise SpecError(field, f"{row_order} ({len(row_order.order)} of them)", allowed)


def row_index(kernel_shape: tuple[int, ...], row_order: RowOrder) -> np.ndarray:
    """Word line of each kernel entry, int array of ``kernel_shape[:-1]``; the same for all columns."""
    return on_kernel(np.arange(math.prod(kernel_shape[:-1])), kernel_shape, row_order)


def on_kernel(lines: Any, kernel_shape: tuple[int, ...], row_order: RowOrder) -> Any:
    """What stands at each word line, [K, ...], at each kernel entry, [*kernel_shape[:-1], ...]; NumPy's or JAX's."""
    shape, beyond = kernel_shape[:-1], lines.shape[1:]
    if row_order == "tap" or (len(shape) == 1 and row_order == "channel"):
        return lines.reshape(*shape, *beyond)
    by_channel = lines.reshape(shape[-1], *shape[:-1], *beyond)
    if isinstance(row_order, ChannelOrder):
        by_channel = by_channel[np.argsort(row_order.order)]
    taps = range(1, len(shape))
    return by_channel.transpose(*taps, 0, *range(len(shape), by_channel.ndim))

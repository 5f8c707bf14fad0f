"""How each kind of layer becomes one product that arrays compute: a dense one, or a two-dimensional convolution.

What a kernel [in, out] or HWIO cannot say is said by rearranging: axes are moved and merged, a one-dimensional
convolution is one of images of one row, a depth of taps stands among the input channels, a transposed convolution is a
convolution of its input with zeros in between. The kernel's entries, and with them the cells, are the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xbm_jax.crossbar import Conv

__all__ = ["Axes", "Driven", "Equation", "Form", "Spatial", "transposed_padding"]

Read = Callable[[jax.Array], jax.Array]
"""From inputs [..., K] or NHWC to what the arrays make of them."""


class Driven(NamedTuple):
    """What of a layer's answers arrays are read for.

    Attributes:
        answers: share of them that an input goes into; the others are the bias, and no array is read for one.
        lines: share of these reads' word lines at which an input stands, not a zero put between inputs.
    """

    answers: float = 1.0
    lines: float = 1.0


@dataclass(frozen=True)
class Form:
    """A layer that is such a product as it is: ``[..., in] @ [in, out]``, or (``conv``) NHWC with HWIO."""

    conv: Conv | None = None

    def on_arrays(self, kernel: Any) -> Any:
        """The layer's kernel as it goes onto arrays."""
        return kernel

    def own(self, kernel: Any, shape: tuple[int, ...]) -> Any:
        """What :meth:`on_arrays` was given, of its ``shape``."""
        return kernel.reshape(shape)

    def driven(self, shape: tuple[int, ...]) -> Driven:
        """What is read for an input of that shape: all of it, unless zeros stand between inputs."""
        return Driven()

    def answer(self, read: Read, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        """The layer's answer to ``x``, whose product is ``read``'s. A convolution may have more axes of examples."""
        if self.conv is None or x.ndim == 4:
            y = read(x)
        else:
            y = read(x.reshape(-1, *x.shape[-3:]))
            y = y.reshape(*x.shape[:-3], *y.shape[1:])
        return y if bias is None else y + bias


@dataclass(frozen=True)
class Axes(Form):
    """A dense layer over several axes: kernel [*inputs, *outputs], the input's ``axes`` in the order of the input."""

    axes: tuple[int, ...] = (-1,)
    kernel_shape: tuple[int, ...] = ()

    def on_arrays(self, kernel: Any) -> Any:
        return kernel.reshape(math.prod(self.kernel_shape[: len(self.axes)]), -1)

    def answer(self, read: Read, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        count, outputs = len(self.axes), self.kernel_shape[len(self.axes) :]
        # Flax sorts them: the kernel's first axis goes with the first of the input's.
        x = jnp.moveaxis(x, sorted(axis % x.ndim for axis in self.axes), range(-count, 0))
        outer = x.shape[:-count]
        y = read(x.reshape(*outer, -1)).reshape(*outer, *outputs)
        return y if bias is None else y + bias.reshape(outputs)


@dataclass(frozen=True)
class Equation(Form):
    """An einsum ``inputs,kernel->outputs`` that is a dense layer: every letter of the kernel is summed or put out.

    Args:
        inputs, kernel, outputs: its three parts; ``...`` may stand for axes of examples.
        kernel_shape: sizes of the kernel's letters.
    """

    inputs: str = ""
    kernel: str = ""
    outputs: str = ""
    kernel_shape: tuple[int, ...] = ()

    @property
    def _parts(self) -> tuple[str, str, str]:
        """Letters of the axes of examples, of those summed over, of those put out."""
        summed = "".join(letter for letter in self.kernel if letter not in self.outputs)
        outer = "".join(letter for letter in self.inputs if letter not in summed)
        return outer, summed, "".join(letter for letter in self.kernel if letter in self.outputs)

    @property
    def dense(self) -> bool:
        """Whether it is a dense layer."""
        outer, summed, put_out = self._parts
        letters = [part.replace("...", "") for part in (self.inputs, self.kernel, self.outputs)]
        return (
            bool(summed)
            and bool(put_out)
            and all(len(set(part)) == len(part) for part in letters)
            and "." not in self.kernel
            and set(summed) <= set(self.inputs)
            and set(self.outputs) == set(outer + put_out)
            and not set(outer) & set(put_out)
        )

    def _sizes(self, letters: str) -> tuple[int, ...]:
        return tuple(self.kernel_shape[self.kernel.index(letter)] for letter in letters)

    def on_arrays(self, kernel: Any) -> Any:
        _, summed, put_out = self._parts
        order = [self.kernel.index(letter) for letter in summed + put_out]
        return kernel.transpose(order).reshape(math.prod(self._sizes(summed)), -1)

    def own(self, kernel: Any, shape: tuple[int, ...]) -> Any:
        _, summed, put_out = self._parts
        letters = summed + put_out
        return kernel.reshape(self._sizes(letters)).transpose([letters.index(letter) for letter in self.kernel])

    def answer(self, read: Read, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        outer, summed, put_out = self._parts
        x = jnp.einsum(f"{self.inputs}->{outer}{summed}", x)
        axes = x.shape[: x.ndim - len(summed)]
        y = read(x.reshape(*axes, -1)).reshape(*axes, *self._sizes(put_out))
        y = jnp.einsum(f"{outer}{put_out}->{self.outputs}", y)
        if bias is None:
            return y
        letters = self.outputs.replace("...", "." * (y.ndim - len(self.outputs.replace("...", ""))))
        return y + bias.reshape([self._sizes(a)[0] if a in put_out else 1 for a in letters])


@dataclass(frozen=True)
class Spatial(Form):
    """A convolution in ``rank`` 1, 2 or 3 dimensions with all that Flax lets it do, as one of images.

    Axes of depth are taken apart into taps: kernel [D, H, W, I, O] lies on arrays as [H, W, D I, O], an image a depth
    of the answer. Padding, also circular and reflected, and zeros between inputs are put on before the read; an answer
    whose taps meet such zeros alone is zero, without a read.

    Args:
        padding: ``(low, high)`` of each dimension, or a name that XLA knows.
        mode: of ``jnp.pad``, for padding that is no zeros.
        spread: input dilation of each dimension; the strides of a transposed convolution.
        turned: whether a transposed convolution's kernel is stored as that of the convolution that it undoes.
    """

    rank: int = 2
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[tuple[int, int], ...] | str = "VALID"
    mode: str | None = None
    spread: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    taps: tuple[int, ...] = (1, 1)
    turned: bool = False

    def __post_init__(self) -> None:
        ones = (1,) * max(2 - self.rank, 0)
        strides, dilation = ((*ones, *given)[-2:] for given in (self.strides, self.dilation))
        flat: Any = {"strides": strides, "dilation": dilation}
        object.__setattr__(self, "conv", Conv(padding=((0, 0), (0, 0)), groups=self.groups, **flat))

    def on_arrays(self, kernel: Any) -> Any:
        if self.turned:
            kernel = jnp.flip(kernel, tuple(range(self.rank))).swapaxes(-1, -2)
        if self.rank == 3:
            depth, *sides, inputs, outputs = kernel.shape
            return jnp.moveaxis(kernel, 0, 2).reshape(*sides, depth * inputs, outputs)
        return kernel.reshape(*(1,) * (2 - self.rank), *kernel.shape)

    def own(self, kernel: Any, shape: tuple[int, ...]) -> Any:
        shape = (*shape[:-2], shape[-1], shape[-2]) if self.turned else shape
        if self.rank == 3:
            kernel = jnp.moveaxis(kernel.reshape(*shape[1:3], shape[0], *shape[3:]), 2, 0)
        kernel = kernel.reshape(shape)
        return jnp.flip(kernel.swapaxes(-1, -2), tuple(range(self.rank))) if self.turned else kernel

    def driven(self, shape: tuple[int, ...]) -> Driven:
        met = self._met(shape[-self.rank - 1 : -1])
        answers = math.prod(float(np.mean(hits > 0)) for hits in met)
        taps = zip(met, self.taps, strict=True)
        return Driven(answers, math.prod(float(hits.sum() / (size * np.sum(hits > 0))) for hits, size in taps))

    def _met(self, sides: tuple[int, ...]) -> list[np.ndarray]:
        """How many taps of each answer meet an input or the padding around them, int [answers] of each dimension."""
        found = []
        widths = zip(sides, self._widths(sides), self.spread, strict=True)
        for axis, (side, (low, high), spread) in enumerate(widths):
            window = (self.taps[axis] - 1) * self.dilation[axis] + 1
            count = ((side - 1) * spread + 1 + low + high - window) // self.strides[axis] + 1
            at = np.arange(count)[:, None] * self.strides[axis] + np.arange(self.taps[axis]) * self.dilation[axis] - low
            found.append((at % spread == 0).sum(1))
        return found

    def answer(self, read: Read, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        outer = x.shape[: x.ndim - self.rank - 1]
        met = self._met(x.shape[len(outer) : -1])
        x = self._padded(x.reshape(-1, *x.shape[len(outer) :]))
        if self.rank == 3:
            x = self._depths(x)
            y = read(x.reshape(-1, *x.shape[2:]))
            y = y.reshape(*x.shape[:2], *y.shape[1:])
        else:
            y = read(x.reshape(x.shape[0], *(1,) * (2 - self.rank), *x.shape[1:]))
            y = y.reshape(y.shape[0], *y.shape[3 - self.rank :])
        if not all(hits.all() for hits in met):
            y = jnp.where(np.asarray(math.prod(np.ix_(*met)) > 0)[..., None], y, 0.0)
        y = y.reshape(*outer, *y.shape[1:])
        return y if bias is None else y + bias

    def _padded(self, x: jax.Array) -> jax.Array:
        """``x`` [n, sides, C] with zeros, or whatever the padding is, around and between."""
        padding = self._widths(x.shape[1:-1])
        if self.mode is not None:
            x, padding = jnp.pad(x, ((0, 0), *padding, (0, 0)), mode=self.mode), [(0, 0)] * self.rank
        widths = [(*sides, step - 1) for sides, step in zip(padding, self.spread, strict=True)]
        return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *widths, (0, 0, 0)))

    def _widths(self, sides: tuple[int, ...]) -> list[tuple[int, int]]:
        """Padding before and behind each dimension."""
        if not isinstance(self.padding, str):
            return list(self.padding)
        window = [(taps - 1) * step + 1 for taps, step in zip(self.taps, self.dilation, strict=True)]
        return lax.padtype_to_pads(sides, window, self.strides, self.padding)

    def _depths(self, x: jax.Array) -> jax.Array:
        """Images [n, depths of the answer, H, W, D C] of ``x`` [n, depths, H, W, C]: each group's taps are together."""
        taps, step, stride = self.taps[0], self.dilation[0], self.strides[0]
        count = (x.shape[1] - (taps - 1) * step - 1) // stride + 1
        seen = [x[:, i * step : i * step + (count - 1) * stride + 1 : stride] for i in range(taps)]
        grouped = [part.reshape(*part.shape[:-1], self.groups, -1) for part in seen]
        return jnp.stack(grouped, -2).reshape(*seen[0].shape[:-1], -1)


def transposed_padding(taps: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after the spread input of a transposed convolution, as ``jax.lax.conv_transpose`` has them.

    SAME answers ``size * stride`` pixels, VALID ``(size - 1) * stride + max(taps, stride)``; ``taps`` with dilation.
    """
    total = taps + stride - 2 + (max(taps - stride, 0) if padding == "VALID" else 0)
    low = taps - 1 if padding == "VALID" or stride > taps - 1 else math.ceil(total / 2)
    return low, total - low

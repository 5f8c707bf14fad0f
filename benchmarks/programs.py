"""Compiled programs with their arguments, and how near to the machine's own limits they come.

    by products = FLOP / P / plain seconds         P: FLOP/s of a plain product
    by memory   = bytes / W / plain seconds        W: bytes/s of a plain copy of as much as the program holds

are the ratios that a program of so many operations, and of so much traffic, would have at the machine's own rates. FLOP
and bytes are those of the compiled program (``cost_analysis``), which counts a loop's body once: where there are loops
the products of the traced program are counted, times the rounds of their loops; bytes stay those of one round. What is
read again from a nearer cache counts as traffic too: a program can be below its limit by memory, not by products.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import spread, timed

__all__ = ["Counted", "Program", "copy_rate", "product_flop", "product_rate", "roofline"]


class Counted(NamedTuple):
    """What a program does in one call: operations, traffic, what it holds meanwhile, and whether it has loops."""

    flop: float
    bytes: float
    held: int
    loops: bool


class Program:
    """A jitted function and its arguments: calling it is what is timed.

    ``static``: how many of the first arguments are no arrays. ``compiled``: of the same function, where it is there.
    """

    def __init__(self, function: Any, *args: Any, static: int = 0, compiled: Any = None) -> None:
        self._function, self._args, self._arrays, self._compiled = function, args, args[static:], compiled
        self._call = (lambda: function(*args)) if compiled is None else (lambda: compiled(*self._arrays))

    def __call__(self) -> Any:
        return self._call()

    def counted(self) -> Counted:
        """FLOP and bytes of a call; compiles unless that was done."""
        traced = self._function.trace(*self._args)
        compiled = self._compiled or traced.lower().compile()
        found = compiled.cost_analysis() or {}
        products, loops = product_flop(traced.jaxpr.jaxpr)
        flop = found.get("flops", 0.0)
        memory = compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return Counted(max(flop, products) if loops else flop, found.get("bytes accessed", 0.0), held, loops)


@cache
def product_rate(side: int = 1024) -> float:
    """FLOP a second of a square product of float32, measured once a process."""
    square = jnp.ones((side, side), jnp.float32)
    return 2 * side**3 / _median_seconds(Program(jax.jit(jnp.matmul), square, square))


@cache
def copy_rate(held: int) -> float:
    """Bytes a second, in and out, of a copy that holds so many bytes, half of them each; measured once a process."""
    half = jnp.ones((max(held // 8, 1),), jnp.float32)
    return 2 * half.nbytes / _median_seconds(Program(jax.jit(lambda x: x + 1), half))  # XLA may elide one of nothing


def _median_seconds(work: Program, rounds: int = 9, seconds: float = 0.3) -> float:
    timed(work, 2)
    calls = max(1, round(seconds / rounds / max(timed(work), 1e-7)))
    return spread([timed(work, calls) for _ in range(rounds)]).median


def roofline(ours: Program, plain: Program, ours_seconds: float, plain_seconds: float) -> dict[str, Any]:
    """The ratios that a program would have at the machine's own rates, and what share of them it reaches."""
    own, other = ours.counted(), plain.counted()
    product, copy = product_rate(), copy_rate(_size(own.held))
    return {
        "limit_by_products": round(own.flop / product / plain_seconds, 3),
        "limit_by_memory": round(own.bytes / copy / plain_seconds, 3),
        "share_of_product_rate": round(own.flop / ours_seconds / product, 3),
        "share_of_copy_rate": round(own.bytes / ours_seconds / copy, 3),
        "plain_share_of_product_rate": round(other.flop / plain_seconds / product, 3),
        "mflop": round(own.flop / 1e6, 3),
        "plain_mflop": round(other.flop / 1e6, 3),
        "mib": round(own.bytes / 2**20, 3),
        "plain_mib": round(other.bytes / 2**20, 3),
        "held_mib": round(own.held / 2**20, 3),
        "bytes_of_loops_once": own.loops,
        "product_gflop_per_s": round(product / 1e9, 2),
        "copy_gb_per_s": round(copy / 1e9, 2),
    }


def _size(held: int) -> int:
    """A power of two near to it, at most 256 MiB: what is larger is in memory either way."""
    return min(2 ** max(held, 1).bit_length(), 2**28)


def product_flop(jaxpr: Any) -> tuple[float, bool]:
    """FLOP of all products of a traced program, loops counted as often as they go, and whether there are any.

    A ``while`` whose rounds nobody knows counts once; of branches the first, since they compute the same elsewhere.
    """
    total, loops = 0.0, False
    for equation in jaxpr.eqns:
        total += _flop(equation)
        inner = [product_flop(getattr(sub, "jaxpr", sub)) for sub in _within(equation)]
        looped = equation.primitive.name in ("scan", "while")
        times = equation.params.get("length", 1) if looped else 1
        total += times * sum(flop for flop, _ in inner)
        loops |= looped or any(own for _, own in inner)
    return total, loops


def _within(equation: Any) -> list[Any]:
    """The programs that an operation calls."""
    if equation.primitive.name == "cond":
        return [equation.params["branches"][0]]
    if equation.primitive.name.startswith("custom_"):  # the function itself; its rules are called where it is derived
        return [value for value in equation.params.values() if _is_program(value)][:1]
    return [value for value in equation.params.values() if _is_program(value)]


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def _flop(equation: Any) -> float:
    """Of a product; 0 of all else."""
    name = equation.primitive.name
    if name not in ("dot_general", "conv_general_dilated"):
        return 0.0
    out = equation.outvars[0].aval
    if name == "dot_general":
        ((contracted, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
        return 2.0 * out.size * math.prod(left.shape[axis] for axis in contracted)
    numbers, kernel = equation.params["dimension_numbers"], equation.invars[1].aval
    batch, features = (out.shape[axis] for axis in numbers.out_spec[:2])
    return 2.0 * batch * features * kernel.shape[numbers.rhs_spec[1]] * math.prod(_pairs(equation))


def _pairs(equation: Any) -> list[int]:
    """Along each axis of a convolution, pairs of an output and a tap that falls on an input, not on a padded zero."""
    numbers, params = equation.params["dimension_numbers"], equation.params
    spatial = zip(
        (equation.invars[0].aval.shape[axis] for axis in numbers.lhs_spec[2:]),
        (equation.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]),
        (equation.outvars[0].aval.shape[axis] for axis in numbers.out_spec[2:]),
        *(params[name] for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")),
        strict=True,
    )
    found = []
    for size, taps, outputs, stride, (before, _), apart, step in spatial:
        at = np.arange(outputs)[:, None] * stride + np.arange(taps) * step - before
        found.append(int(np.sum((at >= 0) & (at <= (size - 1) * apart) & (at % apart == 0))))
    return found

r"""Wire resistance of a passive array, folded into the conductances that an ideal array would need.

**Circuit.** ``n`` word lines (rows) cross ``m`` bit lines (columns). Word line ``i`` is driven at its column-0 end with
``v_i`` through one segment of ``R`` = ``row_ohms``; bit line ``j`` is a virtual ground behind its last row through one
segment of ``C`` = ``col_ohms``; neighbouring cells are one segment apart; cell (i, j), of conductance ``g_ij``, joins
the word-line node ``U_ij`` to the bit-line node ``W_ij``. Kirchhoff's current law at every node::

    (U_ij - U_i,j-1) / R + (U_ij - U_i,j+1) / R + g_ij (U_ij - W_ij) = 0,    U_i,-1 = v_i,  no segment behind j = m-1
    (W_ij - W_i-1,j) / C + (W_ij - W_i+1,j) / C + g_ij (W_ij - U_ij) = 0,    W_n,j  = 0,    no segment above i = 0

and column ``j`` delivers ``W_n-1,j / C``. All of it is linear in ``v``, so the array reads as ``v @ effective``.

**Solution.** The array is built up row by row from the top. What stands above the bit lines is at each stage a Norton
equivalent, currents ``J v - Y W`` into bit lines held at ``W``, with a symmetric positive semidefinite ``Y`` [m, m]:

* word line ``i`` joins in parallel: ``Y += T_i``, and column ``i`` of ``J`` becomes ``t_i``. In units of ``1 / R``,
  with ``c_j = R g_ij``, node ``j`` sees ``a_j`` towards the driver and ``b_j`` towards the open end, two ladders::

      a_0 = 1,    a_j+1 = (c_j + a_j) / (1 + c_j + a_j),        b_m-1 = 0,    b_j-1 = (c_j + b_j) / (1 + c_j + b_j)

  The segment before node ``j`` divides the voltage by ``1 + c_j + b_j``: with ``e_j`` the running sum of
  ``log(1 + c_j + b_j)``, ``t_ij = g_ij exp(-e_j)``. ``T_i``, the Schur complement of the line's nodes, is symmetric,
  and for ``j < k``::

      T_jj = g_j (a_j + b_j) / (a_j + b_j + c_j),        T_jk = -R g_j g_k exp(e_j - e_k) / (a_j + b_j + c_j)

* a segment of every bit line follows in series: ``[Y J] -= C Y (I + C Y)^-1 [Y J]``.

Behind the last row ``effective`` is the transpose of ``J``.

**Rows that are not read** have their selectors open: no current leaves through their cells, whatever they hold, but the
bit lines still pass them. Those above the rows that are read carry nothing and are left out; those below are ``d``
more segments in series, one of ``d C`` for all of them: ``J`` becomes ``(I + d C Y)^-1 J``. From the other side, bit
lines driven, they make the first segment of a ladder ``1 + d`` times as long: ``a_0 = 1 / (1 + d)``, and the voltage is
divided there by ``1 + (1 + d) (c_0 + b_0)``.

Nothing divides by a resistance, so zero ohms are exact.

**Accuracy.** The wires enter as a correction of the conductances, and a segment in series leaves ``C Y < I``, hence
``cond(I + C Y) <= 2 + C max g`` in any array: float32 suffices. What would still add up over hundreds of rows is the
rounding of the sums over a row of ``Y``, small differences of large entries. With all drivers and all bit lines at one
voltage no current flows, so ``Y 1 = J 1``; ``J`` has no negative entry, so its sums are accurate, and each step puts
the difference back on the diagonal of ``Y``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from xbm_jax.errors import SpecError
from xbm_jax.promotion import numpy_promotion

__all__ = ["fold_wires"]

CHUNK_BYTES = 2**27
"""Working memory of one pass; more arrays than fit are folded one chunk after another."""


@numpy_promotion
def fold_wires(
    conductance: jax.Array,
    row_ohms: float | jax.Array,
    col_ohms: float | jax.Array,
    passed: ArrayLike | None = None,
) -> jax.Array:
    """Effective conductances of passive arrays with resistive wires: column currents are ``v @ effective``.

    Parameters: ``conductance`` [..., n, m] siemens, not negative, physical columns in their order from the drivers,
    rows in their order towards the virtual grounds, unused cells included; ``row_ohms`` and ``col_ohms``, scalars, the
    resistance of one segment of a word line and of a bit line, zero for an ideal wire; ``passed``, integers that
    broadcast to the leading axes: rows that are not read, between the last row and the virtual grounds. Returns
    [..., n, m] siemens in the floating dtype of ``conductance``, computed in float32 or wider; the input itself if both
    resistances are known to be zero.

    Pure and traceable in all arguments (jit, vmap, grad). Where both directions resist, an array costs about
    ``5 n m k^2`` multiply-adds with ``k = min(n, m)``, otherwise ``O(n m)``; a gradient keeps ``10 n m k`` numbers of
    each array. Raises :class:`SpecError` for a concrete resistance or ``passed`` that is negative or not finite, or for
    fewer than two axes. Equations: module docstring.
    """
    conductance = jnp.asarray(conductance)
    if conductance.ndim < 2:
        raise SpecError("conductance", conductance.shape, "an array [..., rows, columns]")
    row_ideal, col_ideal = _is_ideal("row_ohms", row_ohms), _is_ideal("col_ohms", col_ohms)
    if (row_ideal and col_ideal) or conductance.size == 0:
        return conductance
    floating = jnp.issubdtype(conductance.dtype, jnp.floating)
    out_dtype = conductance.dtype if floating else jnp.result_type(float)
    g = conductance.astype(jnp.promote_types(out_dtype, jnp.float32))
    row, col = jnp.asarray(row_ohms, g.dtype), jnp.asarray(col_ohms, g.dtype)
    rows = None if passed is None else _rows_passed(passed, g)
    if col_ideal:
        folded = _word_lines(g, row).drive
    elif row_ideal:
        folded = _reciprocal(_word_lines(_reciprocal(g), col, None if rows is None else rows[..., None]).drive)
    elif g.shape[-1] <= g.shape[-2]:
        folded = _fold_batch(g, row, col, (None, rows), CHUNK_BYTES)
    else:
        folded = _reciprocal(_fold_batch(_reciprocal(g), col, row, (rows, None), CHUNK_BYTES))
    return folded.astype(out_dtype)


_Passed = tuple[jax.Array | None, jax.Array | None]
"""Segments of rows that are not read, one number for each array: before its drivers, and behind its bit lines."""


def _rows_passed(passed: ArrayLike, g: jax.Array) -> jax.Array:
    """``passed`` of each array in ``g``; a traced one is not checked."""
    if not isinstance(passed, Tracer) and not np.all(np.isfinite(passed) & (np.asarray(passed) >= 0)):
        raise SpecError("passed", passed, "finite numbers of rows, zero or more")
    return jnp.broadcast_to(jnp.asarray(passed, g.dtype), g.shape[:-2])


def _is_ideal(field: str, ohms: float | jax.Array) -> bool:
    """Whether a resistance is known to be zero; a traced one is neither known nor checked."""
    if isinstance(ohms, Tracer):
        return False
    try:
        value = float(ohms)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise SpecError(field, ohms, "one finite resistance per segment, zero or more ohms")
    return value == 0


def _reciprocal(g: jax.Array) -> jax.Array:
    """The array seen from its outputs: bit lines driven, word lines read; transfer conductances are the same."""
    return jnp.flip(jnp.swapaxes(g, -1, -2), (-1, -2))


class _WordLines(NamedTuple):
    """Word lines with their bit lines held: all [..., m], names as in the module docstring."""

    g: jax.Array
    diagonal: jax.Array  # T_jj, siemens
    spread: jax.Array  # R / (a_j + b_j + c_j), ohms
    decay: jax.Array  # e_j
    drive: jax.Array  # t_j, siemens


@jax.jit
def _word_lines(g: jax.Array, row_ohms: jax.Array, passed: jax.Array | None = None) -> _WordLines:
    """The two ladders of each word line in ``g`` [..., m]; sums, products and quotients of what is not negative.

    ``passed`` [...]: segments before the first.
    """
    c = row_ohms * g
    start = jnp.ones_like(c[..., 0])
    near = _ladder(c, start if passed is None else start / (1 + passed), reverse=False)
    far = _ladder(c, jnp.zeros_like(c[..., 0]), reverse=True)
    divided = c + far if passed is None else (c + far).at[..., 0].multiply(1 + passed)
    decay = jnp.cumsum(jnp.log1p(divided), -1)
    total = c + near + far
    return _WordLines(g, g * (near + far) / total, row_ohms / total, decay, g * jnp.exp(-decay))


def _ladder(c: jax.Array, start: jax.Array, *, reverse: bool) -> jax.Array:
    """Conductances seen along a line, in units of a segment's: ``x -> (c + x) / (1 + c + x)`` from ``start``."""

    def step(x: jax.Array, c_j: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (c_j + x) / (1 + c_j + x), x

    _, seen = lax.scan(step, start, jnp.moveaxis(c, -1, 0), reverse=reverse)
    return jnp.moveaxis(seen, 0, -1)


def _line_admittance(line: _WordLines) -> jax.Array:
    """``T`` [m, m] of one word line: current drawn from bit lines held at a voltage, its driver at zero."""
    j = jnp.arange(line.g.shape[-1])
    first = j[:, None] < j[None, :]
    spread = jnp.where(first, line.spread[:, None], line.spread[None, :])
    shared = spread * jnp.exp(-jnp.abs(line.decay[:, None] - line.decay[None, :]))
    return jnp.where(j[:, None] == j[None, :], line.diagonal, -shared * line.g[:, None] * line.g[None, :])


def _fold_one(g: jax.Array, row_ohms: jax.Array, col_ohms: jax.Array, passed: _Passed) -> jax.Array:
    """Effective conductances of one array [n, m]; the carry is ``[Y J]`` [m, m + n]."""
    (n, m), (before, behind) = g.shape, passed
    eye = jnp.eye(m, dtype=g.dtype)

    def step(norton: jax.Array, row: tuple[jax.Array, _WordLines]) -> tuple[jax.Array, None]:
        index, line = row
        norton = norton.at[:, :m].add(_line_admittance(line))
        norton = norton.at[:, m + index].set(line.drive)
        residue = norton[:, m:].sum(1) - norton[:, :m].sum(1)  # of Y 1 = J 1: rounding only, no derivative
        norton = norton.at[:, :m].add(jnp.diag(lax.stop_gradient(residue)))
        root = lax.linalg.cholesky(eye + col_ohms * norton[:, :m], symmetrize_input=False)
        half = lax.linalg.triangular_solve(root, norton, left_side=True, lower=True)
        drop = jnp.matmul(half[:, :m].T, half, precision=lax.Precision.HIGHEST)
        return norton - col_ohms * drop, None

    norton, _ = lax.scan(step, jnp.zeros((m, m + n), g.dtype), (jnp.arange(n), _word_lines(g, row_ohms, before)))
    if behind is None:
        return norton[:, m:].T
    root = lax.linalg.cholesky(eye + behind * col_ohms * norton[:, :m], symmetrize_input=False)
    return cho_solve((root, True), norton[:, m:]).T


@partial(jax.jit, static_argnums=4)
def _fold_batch(g: jax.Array, row_ohms: jax.Array, col_ohms: jax.Array, passed: _Passed, chunk_bytes: int) -> jax.Array:
    """:func:`_fold_one` over all leading axes, in chunks of bounded memory."""
    *lead, n, m = g.shape
    arrays = math.prod(lead)
    per_array = 7 * m * (m + n) * g.dtype.itemsize  # as XLA allots it, measured at 64, 128 and 256 rows
    chunks = -(-arrays * per_array // chunk_bytes)
    size = -(-arrays // chunks)
    flat, passed = g.reshape(arrays, n, m), jax.tree.map(lambda rows: rows.reshape(arrays), passed)
    fold = jax.vmap(_fold_one, in_axes=(0, None, None, 0))
    if chunks == 1:
        return fold(flat, row_ohms, col_ohms, passed).reshape(g.shape)
    missing = chunks * size - arrays
    padded = jnp.pad(flat, ((0, missing), (0, 0), (0, 0))).reshape(chunks, size, n, m)
    passed = jax.tree.map(lambda rows: jnp.pad(rows, (0, missing)).reshape(chunks, size), passed)
    folded = lax.map(lambda part: fold(part[0], row_ohms, col_ohms, part[1]), (padded, passed))
    return folded.reshape(-1, n, m)[:arrays].reshape(g.shape)

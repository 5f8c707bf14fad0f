"""What shares one mask value: a column of a row tile, a weight, ..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax

from xbm_jax.crossbar import Plan
from xbm_jax.errors import MethodError

__all__ = ["Column", "Filter", "Granularity", "Kernel", "Line", "Weight"]


@dataclass(frozen=True)
class Granularity:
    """The shape of a layer's mask, and what it multiplies.

    ``on_columns``: the mask is constant along a column of a row tile, or along one of its two source lines, so it is a
    gain and no cell is rewritten; otherwise it multiplies weights and the cells that change are rewritten.
    """

    on_columns: ClassVar[bool]

    def shape(self, plan: Plan) -> tuple[int, ...]:
        """Shape of one layer's mask logits."""
        raise TypeError(f"{type(self).__name__} gives no shape for kernel {plan.kernel_shape}")

    def spread(self, values: jax.Array, plan: Plan) -> jax.Array:
        """Mask values as gains of columns [T, N], of lines [T, 2, N], or as factors that broadcast to the kernel."""
        del plan
        return values


@dataclass(frozen=True)
class Column(Granularity):
    """One value per row tile and output channel, [T, N]: XBM (Zhang 2022), XMA."""

    on_columns = True

    def shape(self, plan: Plan) -> tuple[int, ...]:
        return plan.row_tiles, plan.columns


@dataclass(frozen=True)
class Line(Granularity):
    """One value per row tile and source line, [T, 2, N]: index 0 the positive line of each differential pair.

    Raises:
        MethodError: a layer whose encoding has no pairs.
    """

    on_columns = True

    def shape(self, plan: Plan) -> tuple[int, ...]:
        if plan.spec.encoding != "differential":
            allowed = "'differential' for masks by line: no other encoding has a positive and a negative line"
            raise MethodError("CrossbarSpec.encoding", plan.spec.encoding, allowed)
        return plan.row_tiles, 2, plan.columns


@dataclass(frozen=True)
class Filter(Granularity):
    """One value per output channel, [1, N], whatever the number of row tiles."""

    on_columns = True

    def shape(self, plan: Plan) -> tuple[int, ...]:
        return 1, plan.columns

    def spread(self, values: jax.Array, plan: Plan) -> jax.Array:
        return jax.numpy.broadcast_to(values, (plan.row_tiles, plan.columns))


@dataclass(frozen=True)
class Kernel(Granularity):
    """One value per (input channel, output channel), all taps together: KSM (Yang 2021)."""

    on_columns = False

    def shape(self, plan: Plan) -> tuple[int, ...]:
        return (*(1 for _ in plan.kernel_shape[:-2]), *plan.kernel_shape[-2:])


@dataclass(frozen=True)
class Weight(Granularity):
    """One value per weight: Piggyback (Mallya 2018)."""

    on_columns = False

    def shape(self, plan: Plan) -> tuple[int, ...]:
        return plan.kernel_shape

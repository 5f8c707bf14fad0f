"""What masks add to a chip, and what switching from one task to another costs, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.errors import MethodError
from xbm_jax.hardware.adaption import cell_joules, changed, seconds_of_a_write
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.memory import bits_of, code_bits, layer_arrays
from xbm_jax.models import Chip
from xbm_jax.tasks import Task
from xbm_jax.tasks.task import check_fits, stored

__all__ = ["MaskMemory", "SwitchCost", "mask_memory", "switch_cost"]


@dataclass(frozen=True)
class MaskMemory:
    """Bits that resident masks need on the chip for each way of masking, and their area.

    Attributes:
        column: a bit a column of a row tile: XBM's buffer.
        line: a bit a source line, two of a pair.
        kernel: KSM's bit a kernel, were it applied without rewriting cells.
        weight: Piggyback's bit a weight, likewise.
        m2: area of one, by name; empty where the technology has no ``sram_m2_per_bit``.
        cells_m2: area of the chip's arrays alone, where known, else NaN.
        technology: whose constants these are.
    """

    column: int
    line: int
    kernel: int
    weight: int
    m2: dict[str, float]
    cells_m2: float
    technology: str


def mask_memory(chip: Chip, technology: Technology, tasks: int = 1) -> MaskMemory:
    """What masks of ``tasks`` resident tasks take: a bit a column, a line, a kernel or a weight, and task.

    A mask of weights that is to act without a write needs its bit at the cell, in an array of memory as large as the
    crossbar: that is what Piggyback and KSM save by rewriting.
    """
    column = line = kernel = weight = cells = 0
    for tiles in chip.tiles.values():
        plan = tiles.plan
        column += plan.row_tiles * plan.columns
        line += plan.row_tiles * plan.columns * plan.spec.polarities
        kernel += int(np.prod(plan.kernel_shape[-2:]))
        weight += int(np.prod(plan.kernel_shape))
        cells += layer_arrays(plan) * plan.spec.rows * plan.spec.cols
    bits = {"column": column, "line": line, "kernel": kernel, "weight": weight}
    bits = {name: count * tasks for name, count in bits.items()}
    each, cell = technology.get("sram_m2_per_bit"), technology.get("cell_m2")
    sizes = {} if each is None else {name: float(count * each) for name, count in bits.items()}
    return MaskMemory(
        **bits, m2=sizes, cells_m2=float("nan" if cell is None else cells * cell), technology=technology.name
    )


@dataclass(frozen=True)
class SwitchCost:
    """From one task to another on one chip.

    Attributes:
        bits: of masks, norms and head that are loaded.
        differing_bits: of the masks' codes, those that differ between the two.
        cells: whose level differs.
        joules, seconds: of writing the cells and loading the bits; NaN without constants for them.
        technology: whose constants these are.
    """

    bits: int
    differing_bits: int
    cells: int
    joules: float
    seconds: float
    technology: str


def switch_cost(chip: Chip, before: Task, after: Task, technology: Technology) -> SwitchCost:
    """What going from ``before`` to ``after`` loads and writes: nothing of what is equal has to be touched.

    Raises:
        BankError: tasks of another chip. MethodError: tasks of different methods, of which no difference can be made.
    """
    if before.method.learned != after.method.learned:
        raise MethodError("after.method", after.method.name, f"{before.method.name}, the method of the task before")
    check_fits(chip, before)
    check_fits(chip, after)
    before, after = stored(chip, before), stored(chip, after)
    rule = after.method.rule
    changes: dict[str, np.ndarray] = {name: np.zeros(()) for name in ("cells", "rows", "arrays")}
    bits = differing = 0
    if rule is not None:
        codes = [task.trained["masks"] for task in (before, after)]
        bits = sum(int(n) for n in code_bits(rule, {p: t.plan for p, t in chip.tiles.items()}, codes[1]).values())
        differing = sum(_hamming(*pair) for pair in zip(*map(jax.tree.leaves, codes), strict=True))
    if rule is not None and rule.rewrites_cells:
        for path, tiles in chip.tiles.items():
            states = [rule.apply(tiles, task.trained["masks"][path])[0] for task in (before, after)]
            found = changed(*states)
            changes = {name: count + np.float64(found[name]) for name, count in changes.items()}
    own = {"norms": after.trained["norms"], "head": after.trained["head"], "state": after.state}
    bits += bits_of(own)
    joules, seconds = _price(chip, technology, bits, changes)
    return SwitchCost(bits, differing, int(changes["cells"]), joules, seconds, technology.name)


def _hamming(one: jax.Array, other: jax.Array) -> int:
    """Bits in which two arrays of codes differ."""
    differing = np.bitwise_xor(np.asarray(one), np.asarray(other)) if one.dtype.kind in "ui" else one != other
    return int(np.unpackbits(np.ascontiguousarray(differing).view(np.uint8)).sum())


def _price(chip: Chip, technology: Technology, bits: int, changes: Mapping[str, np.ndarray]) -> tuple[float, float]:
    load, cells, unknown = technology.get("sram_write_joules_per_bit"), float(changes["cells"]), float("nan")
    loaded = unknown if load is None else bits * float(load)
    if not cells:
        return loaded, 0.0
    siemens = np.mean([float(jnp.mean(tiles.conductance)) for tiles in chip.tiles.values()])
    each, seconds = cell_joules(technology, "write", siemens), seconds_of_a_write(technology, changes)
    pulses = cells * float(technology.get("write_pulses", 1))
    return loaded + pulses * float(unknown if each is None else each), float(unknown if seconds is None else seconds)

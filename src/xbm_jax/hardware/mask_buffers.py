"""A task's mask as a chip's arrays would hold it, to drive a circuit's test bench with, and back from such files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Plan, Tiles
from xbm_jax.errors import BankError, DataError, MethodError
from xbm_jax.hardware.mask_files import CARD, buffer_card, geometry, memh, read_card, read_words
from xbm_jax.hardware.mask_words import MaskWords, codes_of, hex_word, mask_words
from xbm_jax.masks import Column, Levels, Masked
from xbm_jax.masks.alphabet import code_dtype
from xbm_jax.models import Chip
from xbm_jax.paths import as_path
from xbm_jax.promotion import numpy_promotion
from xbm_jax.storage.codec import decode, encode
from xbm_jax.storage.files import replace_file, replace_json
from xbm_jax.tasks import Task, stored
from xbm_jax.tasks.task import check_fits, same_bits

__all__ = ["MaskBuffer", "mask_buffer", "read_mask_buffer"]

_ALLOWED = (
    "a method whose mask is of columns, filters or source lines, so that arrays can hold it: xbm, xbm_levels, "
    "xbm_lines, xma, or masked(name, Column(), Filter() or Line(), ...)"
)


@dataclass(frozen=True, eq=False)
class MaskBuffer:
    """A task's mask bits in the order in which arrays hold them (:mod:`xbm_jax.hardware.mask_words`).

    Attributes:
        network: the chip's network.
        method: the task's method, by name.
        rule: what the words' codes stand for.
        layers: in the order of ``chip.tiles``.
    """

    network: str
    method: str
    rule: Masked | Levels
    layers: tuple[MaskWords, ...]

    @property
    def bits(self) -> int:
        """Bits that all arrays hold; what :func:`xbm_jax.hardware.task_bits` counts is stored once a column."""
        return sum(layer.bits for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """What ``buffer.json`` holds: geometry, files and checksums, and the rule; the words are in the files.

        Raises:
            BankError: a rule that cannot be stored.
        """
        about = {"network": self.network, "method": self.method, "rule": encode(self.rule, "rule"), "bits": self.bits}
        return buffer_card(about, self.layers)

    def write(self, folder: str | PathLike[str]) -> None:
        """Write ``<layer>.memh`` for each layer, as Verilog's ``$readmemh`` takes it, and ``buffer.json``, last.

        Each file is replaced in one step. Until the last one is there, :func:`read_mask_buffer` refuses the folder. A
        layer's ``/`` is a dot in its file's name.

        Raises:
            OutputError: the folder cannot be written. BankError: a rule that cannot be stored.
        """
        place, card = as_path(folder), self.to_json()
        for layer, entry in zip(self.layers, card["layers"], strict=True):
            replace_file(place / entry["file"], memh(layer))
        replace_json(place / CARD, card)


@numpy_promotion
def mask_buffer(chip: Chip, task: Task) -> MaskBuffer:
    """The bits of a task's column masks in the order in which the chip's arrays hold them.

    An array of ``spec.cols`` bit lines holds one word of as many bits for each of its row tiles and each bit of a code,
    see :mod:`xbm_jax.hardware.mask_words`. Layers that stayed digital have none.

    Raises:
        MethodError: a method whose mask arrays cannot hold: none, or one that rewrites cells or computes beside them.
        BankError: a task of another chip, or masks that do not fit its layers.
    """
    check_fits(chip, task)
    rule = task.method.rule
    if not isinstance(rule, Masked | Levels) or not _mask(rule).granularity.on_columns:
        raise MethodError("task.method", task.method.name, _ALLOWED)
    codes = stored(chip, task).trained["masks"]
    layers = tuple(_layer(path, tiles, rule, codes[path]) for path, tiles in chip.tiles.items())
    return MaskBuffer(chip.network.name, task.method.name, rule, layers)


def _layer(path: str, tiles: Tiles, rule: Masked | Levels, values: Any) -> MaskWords:
    plan, own = tiles.plan, _mask(rule)
    for part, kept in zip(jax.tree.leaves(values), jax.tree.leaves(rule.stored(plan)), strict=True):
        if np.shape(part) != kept.shape:
            allowed = f"{kept.shape}, what this chip's layers need"
            raise BankError(f"task.trained['masks'][{path!r}].shape", np.shape(part), allowed)
    codes, level = (values["mask"], int(values["low"][0])) if isinstance(rule, Levels) else (values, None)
    spread = np.asarray(own.granularity.spread(jnp.asarray(codes), plan))
    if spread.shape not in _shapes(plan) or not same_bits(
        _gains(tiles, rule, spread, level), rule.apply(tiles, values)[1]
    ):
        raise MethodError("task.method", type(own.granularity).__name__, _ALLOWED)
    return MaskWords(path, plan, mask_words(plan, spread, own.alphabet.bits), level)


def _mask(rule: Masked | Levels) -> Masked:
    return rule.mask if isinstance(rule, Levels) else rule


def _shapes(plan: Plan) -> list[tuple[int, ...]]:
    """Shapes of codes that a layer's bit lines can hold: of columns, and of lines where there are pairs."""
    tiles, columns = plan.row_tiles, plan.columns
    return [(tiles, columns), (tiles, 2, columns)][: plan.spec.polarities]


def _gains(tiles: Tiles, rule: Masked | Levels, spread: np.ndarray, level: int | None) -> jax.Array:
    """Gains of codes that are spread over columns or lines already: what ``rule.apply`` makes of them."""
    own, codes = dataclasses.replace(_mask(rule), granularity=Column()), jnp.asarray(spread)  # it spreads no more
    if isinstance(rule, Levels):
        values = {"mask": codes, "low": jnp.asarray([level], jnp.uint16)}
        gains = dataclasses.replace(rule, mask=own).apply(tiles, values)[1]
    else:
        gains = own.apply(tiles, codes)[1]
    assert gains is not None  # of columns or lines
    return gains


@numpy_promotion
def read_mask_buffer(folder: str | PathLike[str], chip: Chip) -> dict[str, jax.Array]:
    """The gains that a folder's words stand for on a chip: ``{path: [T, N] or [T, 2, N]}``.

    Bit for bit what ``rule.apply`` gave of the task that :meth:`MaskBuffer.write` wrote, in the dtype of the layer's
    weight scales. Another chip will do if its layers lie on arrays in the same way.

    Raises:
        BankError: files that are missing, incomplete, damaged (it names the file and the line) or of another geometry.
    """
    if not isinstance(chip, Chip):
        raise DataError("chip", type(chip).__name__, "a Chip: xbm.program(backbone, spec, key)")
    place = as_path(folder)
    card = read_card(place)
    rule = decode(card["rule"])
    if not isinstance(rule, Masked | Levels):
        raise BankError("buffer.rule", type(rule).__name__, "Masked or Levels")
    layers = {entry["path"]: entry for entry in card["layers"]}
    if layers.keys() != chip.tiles.keys():
        raise BankError("buffer.layers", sorted(layers), f"the chip's layers {sorted(chip.tiles)}")
    for path, tiles in chip.tiles.items():
        for name, wanted in geometry(tiles.plan).items():
            if (found := layers[path].get(name)) != wanted:
                raise BankError(f"buffer.{path}.{name}", found, f"{wanted!r}, this chip's")
    return {path: _read_gains(place, tiles, rule, layers[path]) for path, tiles in chip.tiles.items()}


def _read_gains(folder: Path, tiles: Tiles, rule: Masked | Levels, entry: dict[str, Any]) -> jax.Array:
    plan, own = tiles.plan, _mask(rule)
    shape, planes = (*plan.array_grid, plan.tiles_per_array, entry["planes"], plan.spec.cols), own.alphabet.bits
    if planes != entry["planes"]:
        raise BankError(f"buffer.{entry['path']}.planes", entry["planes"], f"{planes}, the bits of a code")
    mask = jax.ShapeDtypeStruct(own.stored(plan).shape, np.uint8)
    spread = jax.eval_shape(lambda codes: own.granularity.spread(codes, plan), mask)
    if Path(entry["file"]).name != entry["file"]:
        raise BankError(f"buffer.{entry['path']}.file", entry["file"], f"the name of a file beside {CARD}")
    lines, read = zip(*read_words(folder / entry["file"], plan.spec.cols, entry["crc32"]), strict=True)
    words = np.stack(read).reshape(shape)
    codes = codes_of(plan, words, by_line=len(spread.shape) == 3)
    odd = np.flatnonzero((mask_words(plan, codes, planes) != words).reshape(len(lines), -1).any(-1))
    if odd.size:
        allowed = "the same bit on all bit lines of a column, and 0 on those of none"
        raise BankError(f"{entry['file']}:{lines[odd[0]]}", hex_word(read[odd[0]]), allowed)
    level = None if entry["level"] is None else int(entry["level"], 16)
    return _gains(tiles, rule, codes.astype(code_dtype(planes)), level)

"""The mask bank: many tasks of one chip in a folder.

    bank/bank.json            what chip the bank belongs to
    bank/tasks/<name>/000001  one task: packed mask codes, norms, statistics and head, by Orbax
    bank/.xbm-lock            held by whoever writes to the bank

Mask codes are packed to bits layer by layer, in path order, and stand one behind another. A task in a bank is bound to
its chip: the chip's identity, its spec and its row order are checked by name when a bank is opened.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.banks.cards import ChipCard, chip_card
from xbm_jax.errors import BankError, warn
from xbm_jax.masks import Method, Rule
from xbm_jax.masks.rules import Codes
from xbm_jax.models import Chip
from xbm_jax.models.norm import folded_norms
from xbm_jax.paths import as_path
from xbm_jax.promotion import numpy_promotion
from xbm_jax.storage import codec, store
from xbm_jax.storage.files import replace_file, strict_json
from xbm_jax.storage.forms import check_form, stamp
from xbm_jax.storage.lock import locked
from xbm_jax.storage.packing import pack, packed_bytes, unpack
from xbm_jax.tasks.kept import compact as as_compact
from xbm_jax.tasks.marks import ChipMark, chip_mark
from xbm_jax.tasks.task import Task, check_fits, is_compact, stored

__all__ = ["MaskBank", "card_of", "describe", "task_names"]

_BANK_FORM = 1
_TASK_FORM = 3  # 1: before heads were values; 2: before tasks were compact
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")


class MaskBank:
    """Tasks by name, on disk, for one chip. ``create``, ``open``, then ``put`` and ``get``."""

    def __init__(self, folder: Path, chip: Chip) -> None:
        self.folder, self.chip = folder, chip

    @classmethod
    def create(cls, folder: str | Path, chip: Chip) -> MaskBank:
        """An empty bank for ``chip``, or the bank that is already there if it belongs to this chip."""
        folder = as_path(folder)
        if not os.path.exists(folder / "bank.json"):
            store.checked_directory(folder / "tasks")
            text = json.dumps({**stamp(_BANK_FORM), "chip": chip_card(chip).to_json()}, indent=1, allow_nan=False)
            with locked(folder):
                if not os.path.exists(folder / "bank.json"):  # nobody was faster
                    replace_file(folder / "bank.json", text + "\n")
        return cls.open(folder, chip)

    @classmethod
    def open(cls, folder: str | Path, chip: Chip) -> MaskBank:
        """The bank in ``folder``.

        Raises:
            BankError: no bank there, a damaged one, or one whose network, row order, spec or cells are not this chip's.
        """
        folder = as_path(folder)
        card_of(folder).check(chip_card(chip))
        return cls(folder, chip)

    @property
    def names(self) -> list[str]:
        """Tasks in the bank, sorted."""
        return task_names(self.folder)

    @numpy_promotion
    def put(self, name: str, task: Task, *, compact: bool = True) -> None:
        """Store a task under ``name``; a task of that name is replaced once the new one is whole.

        Args:
            compact: keep two numbers a channel in 16 bits and a head of 8 bits a weight
                (:func:`xbm_jax.tasks.compact`); else norms, statistics and head as they are, 32 bits each, for a task
                that is to be learned on. What was measured of a task (``meta``) is not measured again.

        Raises:
            BankError: a name or a task that cannot be stored, or no bank any more. OutputError: no room for it, or
                another process that writes to the bank for too long. Nothing has changed then.
        """
        _check_name(name)
        _bank_card(self.folder)
        check_fits(self.chip, task)
        _check_finite(task)
        chip, task = self._chip_of(task), (as_compact if compact else stored)(self.chip, task)
        arrays = _task_arrays(self.chip, task)
        folded = is_compact(task)
        _task_from_arrays(self.chip, task.method, arrays, task.meta, folded)  # what cannot be got is not put
        described = {
            "method": codec.encode(task.method, "task.method"),
            "classes": task.num_classes,
            "compact": folded,
            "meta": task.meta,
            "chip": {"identity": chip.identity, "calibration": chip.calibration},
        }
        strict_json("task.meta", task.meta)
        store.save(self.folder / "tasks" / name, arrays, described, form=_TASK_FORM, lock=self.folder)

    @numpy_promotion
    def get(self, name: str) -> Task:
        """The task as stored: mask values are integer codes, norms and head compact unless it was put otherwise.

        Raises:
            BankError: no such task, or one that is damaged or does not fit the chip.
        """
        arrays, described = store.load(self._there(name), form=_TASK_FORM)
        self._check_chip(described.get("chip", {}))
        method = codec.decode(described["method"])
        if not isinstance(method, Method):
            raise BankError("method", type(method).__name__, "a Method")
        task = _task_from_arrays(self.chip, method, arrays, described["meta"], described.get("compact", False))
        return task.replace(chip=dataclasses.replace(self._mark, **described.get("chip", {})))

    def meta(self, name: str) -> dict[str, Any]:
        """What was measured of a task, without reading its arrays."""
        return store.load_metadata(self._there(name), form=_TASK_FORM)["meta"]

    def remove(self, name: str) -> None:
        """Delete a task."""
        self._there(name)
        with locked(self.folder):
            store.take_away(self._there(name))

    def _there(self, name: str) -> Path:
        """The folder of a task of the bank."""
        _check_name(name)
        if name not in self.names:
            raise BankError("name", name, "one of " + (", ".join(self.names) or "none: the bank is empty"))
        return self.folder / "tasks" / name

    @property
    def _mark(self) -> ChipMark:
        mark = chip_mark(self.chip)
        assert mark is not None  # a bank has the card of its chip, which a traced chip cannot have
        return mark

    def _check_chip(self, chip: dict[str, str]) -> None:
        """Raise unless a stored task is one of the bank's chip, as far as it says."""
        if chip.get("identity", self._mark.identity) != self._mark.identity:
            allowed = f"{self._mark.identity[:12]}, the bank's chip; the task's folder came from another bank"
            raise BankError("task.chip", chip["identity"][:12], allowed)

    def _chip_of(self, task: Task) -> ChipMark:
        """The bank's chip with the calibration that a task was learned under; warns where the chip has another now."""
        if task.chip is None or task.chip.calibration == self._mark.calibration:
            return self._mark
        text = "the task was learned under another calibration than the bank's chip has; what it answers may differ"
        warn(text)
        return dataclasses.replace(self._mark, calibration=task.chip.calibration)


def task_names(folder: str | Path) -> list[str]:
    """Tasks in the bank at ``folder``, sorted; needs no chip.

    Raises:
        BankError: no bank there.
    """
    _bank_card(as_path(folder))
    tasks = as_path(folder) / "tasks"
    return sorted(p.name for p in tasks.iterdir() if store.exists(p)) if tasks.is_dir() else []


def describe(folder: str | Path) -> dict[str, Any]:
    """What a bank holds, without its chip: ``{"chip": card, "tasks": {name: task}}``.

    A task is ``{"method": ..., "classes": ..., "meta": ...}``; one that cannot be read is ``{"error": why}``.
    """
    card = _bank_card(as_path(folder))
    return {"chip": card["chip"], "tasks": {name: _description(as_path(folder), name) for name in task_names(folder)}}


def _description(folder: Path, name: str) -> dict[str, Any]:
    try:
        return store.load_metadata(folder / "tasks" / name, form=_TASK_FORM)
    except BankError as error:
        return {"error": str(error)}


def card_of(folder: str | Path) -> ChipCard:
    """The chip that the bank at ``folder`` belongs to."""
    return ChipCard.from_json(_bank_card(as_path(folder))["chip"])


def _bank_card(folder: Path) -> dict[str, Any]:
    path = folder / "bank.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        chip, _ = card["chip"], card["format"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BankError("bank", str(folder), "a folder with a bank.json in it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BankError("bank.json", str(path), f"an undamaged bank card ({error})") from error
    check_form("bank", card, _BANK_FORM)
    return {"chip": chip}


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BankError("name", name, "letters, digits and . _ @ + - , the first a letter or digit")


def _check_finite(task: Task) -> None:
    """Raise if a value is NaN or infinite: such a task answers one class whatever it sees."""
    for path, leaf in jax.tree_util.tree_flatten_with_path({"trained": task.trained, "state": task.state})[0]:
        values = np.asarray(leaf)
        if not np.issubdtype(values.dtype, np.integer) and not np.isfinite(values.astype(np.float64)).all():
            found = f"{np.count_nonzero(~np.isfinite(values.astype(np.float64)))} of {values.size} values not finite"
            raise BankError("task" + jax.tree_util.keystr(path), found, "finite values; did its training diverge?")


_HEAD = "head_"
"""What names of a head's arrays begin with in a stored task."""


def _task_arrays(chip: Chip, task: Task) -> dict[str, np.ndarray]:
    """A stored task as a few flat arrays."""
    norms, state = task.trained["norms"], task.state
    return {
        "masks": _pack_masks(chip, task),
        "norms": _flat([norms[p][k] for p in sorted(norms) for k in _norm_names(norms[p])]),
        "state": _flat([state[p][k] for p in sorted(state) for k in ("mean", "var")]),
    } | {f"{_HEAD}{name}": _kept(array) for name, array in task.trained["head"].items()}


def _kept(array: Any) -> np.ndarray:
    """An array as it is stored: compact ones as they are, others in float32."""
    array = np.asarray(array)
    return array if array.dtype in (np.int8, np.float16) else array.astype(np.float32)


def _norm_names(affine: dict[str, Any]) -> tuple[str, str]:
    """The two arrays of a norm, in the order in which they are stored."""
    return ("slope", "shift") if "slope" in affine else ("scale", "bias")


def _task_from_arrays(
    chip: Chip, method: Method, arrays: dict[str, np.ndarray], meta: dict[str, Any], folded: bool
) -> Task:
    like = folded_norms(chip.norms, chip.stats, chip.network.epsilons) if folded else chip.norms
    norms = _cut_pairs(arrays["norms"], like) if arrays["norms"].size or method.norms != "frozen" else {}
    state = _cut_pairs(arrays["state"], chip.stats) if arrays["state"].size else {}
    head = {name[len(_HEAD) :]: jnp.asarray(a) for name, a in sorted(arrays.items()) if name.startswith(_HEAD)}
    if method.head.features(head) != chip.num_features:
        found = f"{method.head.features(head)} features"
        raise BankError("head", found, f"{chip.num_features}, what this chip gives")
    masks = _unpack_masks(chip, method.rule, arrays["masks"])
    return Task({"masks": masks, "norms": norms, "head": head}, state, method, meta)


def _stored(chip: Chip, rule: Rule) -> dict[str, Any]:
    """How each layer's codes are stored, in the structure of ``trained["masks"]``."""
    return {path: rule.stored(tiles.plan) for path, tiles in chip.tiles.items()}


def _pack_masks(chip: Chip, task: Task) -> np.ndarray:
    rule, masks = task.method.rule, task.trained["masks"]
    if rule is None:
        return np.zeros(0, np.uint8)

    def packed(kept: Codes, codes: Any) -> np.ndarray:
        if np.shape(codes) != kept.shape:
            raise BankError("task.trained['masks']", np.shape(codes), f"{kept.shape}, what this chip's layers need")
        return pack(np.asarray(codes), kept.bits)

    parts = jax.tree.leaves(jax.tree.map(packed, _stored(chip, rule), masks))
    return np.concatenate([np.zeros(0, np.uint8), *parts])


def _unpack_masks(chip: Chip, rule: Rule | None, data: np.ndarray) -> dict[str, Any]:
    if rule is None:
        return {}
    kept, structure = jax.tree.flatten(_stored(chip, rule))
    counts = [int(np.prod(k.shape)) for k in kept]
    packed = _cut(data, {str(i): (packed_bytes(k.bits, n),) for i, (k, n) in enumerate(zip(kept, counts, strict=True))})
    codes = [
        jnp.asarray(unpack(part, k.bits, n).reshape(k.shape))
        for part, k, n in zip(packed.values(), kept, counts, strict=True)
    ]
    return jax.tree.unflatten(structure, codes)


def _flat(parts: list[Any]) -> np.ndarray:
    return np.concatenate([_kept(p).reshape(-1) for p in parts] or [np.zeros(0, np.float32)])


def _cut(flat: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Split a flat array into named parts; it must be used up exactly."""
    sizes = [int(np.prod(s)) for s in shapes.values()]
    if flat.size != sum(sizes):
        raise BankError("array.size", flat.size, f"{sum(sizes)}, what this chip's layers need")
    parts = np.split(flat, np.cumsum(sizes))[:-1]
    return {p: part.reshape(s) for (p, s), part in zip(shapes.items(), parts, strict=True)}


def _cut_pairs(flat: np.ndarray, like: dict[str, Any]) -> dict[str, Any]:
    names = {p: ("mean", "var") if "mean" in like[p] else _norm_names(like[p]) for p in sorted(like)}
    shapes = {f"{p}\n{k}": like[p][k].shape for p, own in names.items() for k in own}
    parts = _cut(flat, shapes)
    return {p: {k: jnp.asarray(parts[f"{p}\n{k}"]) for k in own} for p, own in names.items()}

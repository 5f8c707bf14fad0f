"""A task as a record: mask codes packed to bits, norms, statistics and head as a few flat arrays.

Mask codes are packed layer by layer, in path order, and stand one behind another; so do norms and statistics. The
head's arrays keep their shapes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np

from xbm_jax.errors import BankError, XbmError
from xbm_jax.masks import Method, Rule
from xbm_jax.masks.rules import Codes
from xbm_jax.models import Chip
from xbm_jax.storage import codec
from xbm_jax.storage.files import strict_json
from xbm_jax.storage.packing import pack, packed_bytes, unpack
from xbm_jax.storage.record import Record
from xbm_jax.tasks.marks import ChipMark
from xbm_jax.tasks.task import Task, is_compact

__all__ = ["TASK_FORM", "check_finite", "record_of", "task_of"]

TASK_FORM = 4  # 1: before heads were values; 2: before tasks were compact; 3: before records knew their names


def record_of(chip: Chip, name: str, task: Task, mark: ChipMark) -> Record:
    """A stored task of ``chip`` as a record; ``mark``: the chip with the calibration that it was learned under.

    Raises:
        BankError: a task that could not be read again, or metadata that JSON cannot hold.
    """
    arrays, folded = _task_arrays(chip, task), is_compact(task)
    _task_from_arrays(chip, task.method, arrays, task.meta, folded)  # what cannot be got is not put
    described = {
        "name": name,
        "method": codec.encode(task.method, "task.method"),
        "classes": task.num_classes,
        "compact": folded,
        "meta": task.meta,
        "chip": {"identity": mark.identity, "calibration": mark.calibration},
        "preprocess": _preprocess(chip),
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "time": now(),
    }
    strict_json("task.meta", task.meta)
    return Record(arrays, described, TASK_FORM)


def task_of(chip: Chip, name: str, record: Record, mark: ChipMark) -> Task:
    """Undo :func:`record_of`; ``mark``: that of ``chip``. What a file says is not believed before it was checked.

    Raises:
        BankError: a record of another chip, or one that is no task that this chip can run.
    """
    described = record.metadata
    try:
        whose = {key: str(described.get("chip", {})[key]) for key in described.get("chip", {})}
        _check_chip(whose, mark)
        for part, array in record.arrays.items():
            _check_array(part, array)
        method = codec.decode(described["method"])
        if not isinstance(method, Method):
            raise BankError("method", type(method).__name__, "a Method")
        task = _task_from_arrays(chip, method, record.arrays, described["meta"], bool(described.get("compact", False)))
        return task.replace(chip=dataclasses.replace(mark, **whose))
    except XbmError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BankError("task", name, f"an undamaged task ({type(error).__name__}: {str(error)[:100]})") from error


def _preprocess(chip: Chip) -> dict[str, Any] | None:
    """What becomes of an image before the network, for whoever reads a bank without this package."""
    network = chip.network
    return network.preprocess and network.preprocess.described() | {"image_size": network.image_size}


def now() -> str:
    """The time, to the second, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _check_chip(whose: dict[str, str], mark: ChipMark) -> None:
    """Raise unless a stored task is one of this chip, as far as it says."""
    if whose.get("identity", mark.identity) != mark.identity:
        allowed = f"{mark.identity[:12]}, the bank's chip; the task's folder came from another bank"
        raise BankError("task.chip", whose["identity"][:12], allowed)


def _check_array(name: str, array: np.ndarray) -> None:
    """Raise unless an array is of a type that tasks have, and finite."""
    allowed = ("uint8",) if name == "masks" else ("int8", "float16", "float32")
    if str(array.dtype) not in allowed:
        raise BankError(f"arrays[{name!r}].dtype", str(array.dtype), "one of " + ", ".join(allowed))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        found = f"{np.count_nonzero(~np.isfinite(array))} of {array.size} values not finite"
        raise BankError(f"arrays[{name!r}]", found, "finite values")


def check_finite(task: Task) -> None:
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


def _norm_names(affine: dict[str, Any]) -> tuple[str, ...]:
    """The arrays of a norm, in the order in which they are stored."""
    return tuple(name for name in ("slope", "shift", "scale", "bias") if name in affine)


def _task_from_arrays(
    chip: Chip, method: Method, arrays: dict[str, np.ndarray], meta: dict[str, Any], folded: bool
) -> Task:
    has_norms = arrays["norms"].size or method.norms != "frozen"
    norms = _cut_pairs(arrays["norms"], _norms_like(chip, folded)) if has_norms else {}
    state = _cut_pairs(arrays["state"], chip.stats) if arrays["state"].size else {}
    head = {name[len(_HEAD) :]: a for name, a in sorted(arrays.items()) if name.startswith(_HEAD)}
    masks = _unpack_masks(chip, method.rule, arrays["masks"])
    # All at once: array by array it takes longer than reading them.
    trained, state = jax.device_put(({"masks": masks, "norms": norms, "head": head}, state))
    features = method.head.features(trained["head"])
    if features != chip.num_features:
        raise BankError("head", f"{features} features", f"{chip.num_features}, what this chip gives")
    return Task(trained, state, method, meta)


def _norms_like(chip: Chip, folded: bool) -> dict[str, Any]:
    """Names and shapes of a task's norms, as those of :func:`xbm_jax.models.norm.folded_norms` if they are folded."""
    return {
        path: dict.fromkeys(("slope", "shift"), norm["scale"]) if folded and path in chip.stats else norm
        for path, norm in chip.norms.items()
    }


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
    counts = [math.prod(k.shape) for k in kept]
    packed = _cut(data, {str(i): (packed_bytes(k.bits, n),) for i, (k, n) in enumerate(zip(kept, counts, strict=True))})
    codes = [unpack(part, k.bits, n).reshape(k.shape) for part, k, n in zip(packed.values(), kept, counts, strict=True)]
    return jax.tree.unflatten(structure, codes)


def _flat(parts: list[Any]) -> np.ndarray:
    return np.concatenate([_kept(p).reshape(-1) for p in parts] or [np.zeros(0, np.float32)])


def _cut(flat: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Split a flat array into named parts; it must be used up exactly."""
    sizes = [math.prod(s) for s in shapes.values()]
    if flat.size != sum(sizes):
        raise BankError("array.size", flat.size, f"{sum(sizes)}, what this chip's layers need")
    parts = np.split(flat, np.cumsum(sizes))[:-1]
    return {p: part.reshape(s) for (p, s), part in zip(shapes.items(), parts, strict=True)}


def _cut_pairs(flat: np.ndarray, like: dict[str, Any]) -> dict[str, Any]:
    names = {p: ("mean", "var") if "mean" in like[p] else _norm_names(like[p]) for p in sorted(like)}
    shapes = {f"{p}\n{k}": like[p][k].shape for p, own in names.items() for k in own}
    parts = _cut(flat, shapes)
    return {p: {k: parts[f"{p}\n{k}"] for k in own} for p, own in names.items()}

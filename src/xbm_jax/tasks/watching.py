"""What an engineer asks of a chip: how noisy is each layer, do converters clip, which columns count, what is simulated.

    SNR = 10 log10( sum y_ideal**2 / sum (y - y_ideal)**2 ),     y_ideal = x @ (s_w * w_int * gain)

over images and pixels, in dB. ``x`` is the layer's own real input on the chip, before its DAC rounds it, and ``w_int``
its nominal weights: ``y_ideal`` is what a digital layer of those weights would give. So the ratio holds input
quantisation, cell errors, wires, noise and converters of this layer alone, not what the layers before it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from xbm_jax.crossbar import Plan, Tiles, nominal_weights, read
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.crossbar.reading.observe import Conversions, conversions, converted, image_total, observed_read
from xbm_jax.crossbar.reading.reads import gained_weights
from xbm_jax.crossbar.writing.lines import plan_by_line
from xbm_jax.errors import DataError, ModelError
from xbm_jax.examples import count, take
from xbm_jax.masks import Rule
from xbm_jax.models import (
    Chip,
    array_weights,
    check_calibrated,
    check_inputs,
    digital_weights,
    driven_lines,
    forward,
    reads_per_example,
)
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import stream
from xbm_jax.tasks.applied import Applied, applied
from xbm_jax.tasks.evaluation import EVAL_BATCH, batches, needed_key
from xbm_jax.tasks.inspection import Inspection, LayerInspection, WorstClip, WorstColumn
from xbm_jax.tasks.task import Task, check_fits, checked_call, source_task

__all__ = ["active_columns", "active_mask", "adc_clip_rates", "inspect"]

_Watch = Callable[[Tiles, jax.Array, jax.Array | None, jax.Array, jax.Array, Conversions | None], dict[str, jax.Array]]
"""``(tiles, x, gain, y, counted, conversions) -> sums over the counted images`` of one layer."""


@numpy_promotion
def inspect(
    chip: Chip,
    images: Any,
    task: Task | None = None,
    key: jax.Array | None = None,
    *,
    batch_size: int = EVAL_BATCH,
) -> Inspection:
    """Look at every layer of a chip while it reads ``images``: ``print(xbm.inspect(chip, images))``.

    Per layer the signal-to-noise ratio of its output against an ideal product of its nominal weights (under the task's
    column gains) with its own real, unquantised input: what a digital layer with those weights would give for the same
    input. So the ratio holds input quantisation, cell errors, wires, noise and converters of this layer alone. Clipping
    and codes are those of the conversions of active columns, noise left out. Layers that stayed digital are not shown,
    padded positions (``InputSpec.mask``) not counted.

    Args:
        chip: programmed and calibrated.
        images: uint8 [n, H, W, C], at least one.
        task: whose masks, norms and rewritten cells are looked at; ``None`` is the source task, without masks.
        key: draws read noise; required where the chip's reads are noisy.
        batch_size: images per compiled call, at most.

    Raises:
        BankError: a task of another chip. DataError: images that the chip cannot read, or none.
        SpecError: a chip that is not calibrated, or no key for noisy reads.
    """
    task = source_task(chip) if task is None else task
    check_fits(chip, task)
    key = checked_call(chip, task, images, batch_size, key)
    images = check_inputs(chip, images)
    if count(images) == 0:
        raise DataError("images", "0 images", "at least one image to inspect the chip on")
    check_calibrated(chip)
    totals: dict[str, dict[str, np.ndarray]] = {}
    own = _of_task(chip, task)
    size = math.ceil(count(images) / math.ceil(count(images) / batch_size))  # so that little is filled up
    for batch in batches(images, size):
        batch_key, counted = None if key is None else stream(key, batch.start), _counted(chip, *batch[1:])
        for path, sums in _watched(_everything, own, batch.inputs, counted, batch_key).items():
            totals[path] = _added(totals[path], sums) if path in totals else sums
    reads, driven = (count_of(chip, take(images, slice(1))) for count_of in (reads_per_example, driven_lines))
    products = {path: reads[path] * driven[path] for path in chip.tiles}
    masks = {path: active_mask(chip, task, path) for path in chip.tiles}
    layers = [
        _layer(path, _plan(chip, task, path), products[path], masks[path], totals[path], count(images))
        for path in chip.tiles
    ]
    total = max(sum(layer.macs for layer in layers), 1)
    folded, simulated = (sum(layer.macs for layer in layers if layer.folded == kind) / total for kind in (True, False))
    digital = digital_weights(chip)
    return Inspection(chip.network.name, count(images), tuple(layers), folded, simulated, array_weights(chip), digital)


@numpy_promotion
def active_columns(chip: Chip, task: Task) -> dict[str, float]:
    """Share of each layer's columns whose gain is not zero (all of them where the method masks no columns).

    Of a task by line the share of source lines.
    """
    check_fits(chip, task)
    return {path: float(active_mask(chip, task, path).mean()) for path in chip.tiles}


@numpy_promotion
def adc_clip_rates(chip: Chip, task: Task, images: Any, key: jax.Array | None = None) -> dict[str, float]:
    """Share of the active columns' conversions that clip, by layer, on one batch under the task's masks and norms.

    ``key`` draws the read noise of the layers before; by default it is a fixed one, which keeps noisy devices readable.
    """
    check_fits(chip, task)
    check_calibrated(chip)
    key = jax.random.key(0) if key is None else key
    sums = _watched(_clipping, _of_task(chip, task), images, _counted(chip, images, count(images)), key)
    return {
        path: _clip_rate(plan_by_line(tiles.plan), sums[path], active_mask(chip, task, path), count(images))
        for path, tiles in chip.tiles.items()
    }


def active_mask(chip: Chip, task: Task, path: str) -> np.ndarray:
    """Which columns of a layer count, bool [T, N], or which of their lines [T, 2, N]."""
    tiles, rule = chip.tiles[path], task.method.rule
    gain = None if rule is None else layer_gain(rule, tiles, task.trained["masks"][path])
    return np.ones((tiles.plan.row_tiles, tiles.plan.columns), bool) if gain is None else np.asarray(gain) != 0


@partial(jax.jit, static_argnames="rule")
def layer_gain(rule: Rule, tiles: Tiles, values: Any) -> jax.Array | None:
    """A layer's column gains; compiled, so that the cells which a rule rewrites are not computed for them."""
    return rule.apply(tiles, values)[1]


def _plan(chip: Chip, task: Task, path: str) -> Plan:
    """A layer's plan as the task has it: rewritten cells, or gains by line, may fold no more. Nothing is computed."""
    tiles, rule = chip.tiles[path], task.method.rule
    if rule is None:
        return tiles.plan
    changed, gain = jax.eval_shape(rule.apply, tiles, task.trained["masks"][path])
    return plan_by_line(changed.plan) if gain is not None and gain.ndim == 3 else changed.plan


def _counted(chip: Chip, inputs: Any, valid: int) -> np.ndarray:
    """Which of a batch's examples count, [n]; of padded ones which of their positions, [n, positions]."""
    examples = (np.arange(count(inputs)) < valid).astype(np.float32)
    real = chip.network.real(inputs)
    return examples if real is None else examples[:, None] * real


def _of_task(chip: Chip, task: Task) -> Applied:
    """The task as it is evaluated."""
    return applied(chip, task.method, task.trained, task.state or chip.stats)


def _watched(
    watch: _Watch, own: Applied, images: Any, counted: np.ndarray, key: jax.Array | None
) -> dict[str, dict[str, np.ndarray]]:
    """What ``watch`` sees of every layer in one forward pass of one batch, on the host.

    The pass is not compiled as a whole, which takes many times as long as the pass: layers are, once for each shape.
    """
    seen: dict[str, dict[str, jax.Array]] = {}
    sizes: dict[str, int] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> jax.Array:
        if x.shape[0] % len(counted):
            raise ModelError(path, f"an input of shape {list(x.shape)}", "one whose first axis counts images")
        y, sums = _observed(watch, tiles, x, gain, counted, key)
        before = sizes.get(path, 0)
        sizes[path] = before + y.size
        seen[path] = _merged(seen[path], sums, y.size / sizes[path]) if before else sums
        return y

    given = (own.chip, own.method, own.trained, own.chip.stats, images)
    forward(*given, key=needed_key(own.chip, key), features=True, layer_read=observe)
    return jax.tree.map(lambda a: a if a.dtype == bool else np.asarray(a, np.float64), jax.device_get(seen))


@partial(jax.jit, static_argnames="watch")
def _observed(
    watch: _Watch, tiles: Tiles, x: jax.Array, gain: jax.Array | None, counted: jax.Array, key: jax.Array | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A layer's answer, and what ``watch`` sees of it."""
    together = observed_read(tiles, x, gain, counted)
    y, found = together or (read(tiles, x, gain, key), conversions(tiles, x, gain, counted))
    return y, watch(tiles, x, gain, y, counted, found)


def _clipping(*given: Any) -> dict[str, jax.Array]:
    """Clipped conversions [T, N] (of lines [T, 2, N]), where conversions are simulated."""
    *_, found = given
    return {} if found is None else {"clipped": found.clipped}


def _everything(
    tiles: Tiles, x: jax.Array, gain: jax.Array | None, y: jax.Array, counted: jax.Array, found: Conversions | None
) -> dict[str, jax.Array]:
    """Power of signal and error [N], clipped conversions [T, N] (of lines [T, 2, N]) and the codes that were met."""
    ideal = product(x, gained_weights(tiles.plan, nominal_weights(tiles), gain), tiles.plan.conv)
    return {
        "signal": image_total(ideal**2, counted),
        "error": image_total((y - ideal) ** 2, counted),
    } | ({} if found is None else found._asdict())


def _added(total: dict[str, np.ndarray], more: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: total[name] | more[name] if name == "met" else total[name] + more[name] for name in total}


def _merged(one: dict[str, jax.Array], other: dict[str, jax.Array], share: float) -> dict[str, jax.Array]:
    """Of two calls of one layer, ``other`` with its share of the outputs: each is a mean over an image's outputs."""
    return {
        name: one[name] | other[name] if name == "met" else one[name] * (1 - share) + other[name] * share
        for name in one
    }


def _layer(
    path: str, plan: Plan, products: float, active: np.ndarray, sums: dict[str, np.ndarray], images: int
) -> LayerInspection:
    met = sums.get("met")
    return LayerInspection(
        path=path,
        folded=plan.fold,
        fold_reason=plan.fold_reason,
        macs=round(products * plan.rows * plan.columns),
        snr_db=_decibels(float(np.sum(sums["signal"])), float(np.sum(sums["error"]))),
        worst_column=_worst_column(sums["signal"], sums["error"]),
        active_columns=float(active.mean()),
        adc_bits=plan.spec.adc.bits,
        clip_rate=_clip_rate(plan, sums, active, images),
        worst_clip=_worst_clip(sums, images),
        codes_used=None if met is None else int(met.sum()),
        codes_share=None if met is None else float(met.mean()),
    )


def _decibels(signal: float, error: float) -> float | None:
    return 10 * math.log10(signal / error) if signal > 0 and error > 0 else None


def _worst_column(signal: np.ndarray, error: np.ndarray) -> WorstColumn | None:
    ratios = [_decibels(float(s), float(e)) for s, e in zip(signal, error, strict=True)]
    found = [(ratio, column) for column, ratio in enumerate(ratios) if ratio is not None]
    return WorstColumn(min(found)[1], min(found)[0]) if found else None


def _clip_rate(plan: Plan, sums: dict[str, np.ndarray], active: np.ndarray, images: int) -> float:
    count = int(converted(plan, active).sum()) * images
    return float(sums["clipped"].sum() / count) if "clipped" in sums and count else 0.0


def _worst_clip(sums: dict[str, np.ndarray], images: int) -> WorstClip | None:
    if not np.any(sums.get("clipped", 0)):
        return None
    at = np.unravel_index(np.argmax(sums["clipped"]), sums["clipped"].shape)  # tile, (line,) column
    return WorstClip(int(at[0]), int(at[-1]), float(sums["clipped"][at] / images))

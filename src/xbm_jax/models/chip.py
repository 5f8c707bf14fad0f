"""The chip: a backbone written onto crossbars, once. A frozen pytree."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import CrossbarSpec, Tiles, at_time, nominal_weights
from xbm_jax.crossbar import plan as plan_kernel
from xbm_jax.crossbar import program as program_kernel
from xbm_jax.crossbar.adc import snapped_range
from xbm_jax.crossbar.fitted import check_age
from xbm_jax.crossbar.quantise import input_code_limits
from xbm_jax.errors import DataError, ModelError, SpecError
from xbm_jax.models.network import Backbone, Calibration, Network
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import named

__all__ = ["Chip", "Rules", "another", "calibration_key", "check_calibrated", "check_images", "program", "redrawn"]

Rules = Mapping[str, CrossbarSpec | None]
"""Path patterns (shell style, first match wins) to a spec of their own, or ``None`` for a digital layer."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chip:
    """A programmed backbone. Every leaf is frozen: no gradient, no optimizer moment, no task changes one.

    Attributes:
        tiles: programmed kernels by layer path.
        digital: arrays that stayed digital (biases, kernels of digital layers), by array path.
        norms: the source task's norm parameters, ``{path: {"scale", "bias"}}``.
        stats: the source task's running statistics, ``{path: {"mean", "var"}}``; batch norms alone have them.
        head: the source task's classifier, ``{"kernel", "bias"}``; digital.
        network: static structure.
    """

    tiles: dict[str, Tiles]
    digital: dict[str, jax.Array]
    norms: dict[str, dict[str, jax.Array]]
    stats: dict[str, dict[str, jax.Array]]
    head: dict[str, jax.Array]
    network: Network = field(metadata={"static": True})

    def replace(self, **changes: Any) -> Chip:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def calibrated(self) -> bool:
        """Whether every layer knows its input scale and converter range."""
        return all(tiles.calibrated for tiles in self.tiles.values())

    @numpy_promotion
    def at(self, t_seconds: float | jax.Array, *, compensate: bool = False) -> Chip:
        """The chip ``t_seconds`` after it was programmed: cells drift, wires are folded anew; identity is unchanged.

        Always counted from programming: ``chip.at(a).at(b)`` is ``chip.at(b)``. With ``compensate`` every layer gets
        one digital factor for its mean drift (see :func:`xbm_jax.crossbar.at_time`).

        Raises:
            SpecError: ``t_seconds`` is below zero, not finite or not one number. A traced one cannot be refused: below
                zero it counts as zero.
        """
        aged = _aged(self.tiles, check_age(t_seconds), compensate)
        return self.replace(tiles=aged)

    @property
    def num_features(self) -> int:
        """Inputs of the head."""
        return self.network.shapes[f"{self.network.head}/kernel"][0]


@numpy_promotion
def program(backbone: Backbone, spec: CrossbarSpec, key: jax.Array, *, rules: Rules | None = None) -> Chip:
    """Write a backbone onto crossbars. Traceable in ``key``: ``vmap`` over keys is a population of chips.

    Args:
        backbone: pretrained network.
        spec: the arrays of every layer that no rule names.
        key: this chip's random draws; each layer folds its path in.
        rules: layers that get another spec or stay digital. The head stays digital: each task brings its own.

    A backbone that came with measurements is calibrated by them where they apply: input scales for any spec,
    converter ranges for the spec that they were measured with. Otherwise call ``calibrate(chip, images)``.
    """
    network, arrays = backbone.network, backbone.arrays
    specs = _layer_specs(network, spec, rules or {})
    tiles = {path: _program_layer(backbone, path, layer_spec, named(key, path)) for path, layer_spec in specs.items()}
    taken = {f"{path}/kernel" for path in tiles}
    taken |= {p for p in arrays if p.rsplit("/", 1)[0] in (*network.norms, network.head)}
    return Chip(
        tiles=tiles,
        digital={p: a for p, a in arrays.items() if p not in taken},
        norms={p: {k: arrays[f"{p}/{k}"] for k in ("scale", "bias")} for p in network.norms},
        stats={p: {k: arrays[f"{p}/{k}"] for k in ("mean", "var")} for p in network.batch_norms},
        head={k: arrays[f"{network.head}/{k}"] for k in ("kernel", "bias")},
        network=network,
    )


@numpy_promotion
def another(chip: Chip, kernels: Mapping[str, jax.Array], key: jax.Array) -> Chip:
    """Another chip of the same design: plans, input scales and calibrated ranges of ``chip``, draws of its own.

    What :func:`program` makes of ``key`` with these scales and ranges, but traceable in all arguments: nothing is
    decided anew. ``kernels`` are the backbone's, by layer path.
    """
    tiles = {}
    for path, layer in chip.tiles.items():
        made = program_kernel(kernels[path], layer.plan, named(key, path), input_scale=layer.input_scale)
        tiles[path] = made if made.adc is not None else made.replace(adc=layer.adc)
    return chip.replace(tiles=tiles)


@numpy_promotion
def redrawn(chip: Chip, key: jax.Array) -> Chip:
    """The same levels, scales and ranges on cells and converters of another chip's draws, right after programming.

    Traceable: a fresh chip for every training step, say (``adapt(..., chips=redrawn)``).
    """
    tiles = {}
    for path, layer in chip.tiles.items():
        scales = {"weight_scale": layer.weight_scale, "input_scale": layer.input_scale}
        made = program_kernel(nominal_weights(layer), layer.plan, named(key, path), **scales)
        tiles[path] = made if made.adc is not None else made.replace(adc=layer.adc)
    return chip.replace(tiles=tiles)


@partial(jax.jit, static_argnames="compensate")
def _aged(tiles: dict[str, Tiles], t_seconds: jax.Array, compensate: bool) -> dict[str, Tiles]:
    return {path: at_time(layer, t_seconds, compensate=compensate) for path, layer in tiles.items()}


def check_images(chip: Chip, images: jax.Array | np.ndarray) -> np.ndarray:
    """``images`` as an array, or an error that says what is wrong with them."""
    array = np.asarray(images)
    channels = len(chip.network.preprocess.mean)
    if array.ndim != 4 or array.shape[-1] != channels:
        raise DataError("images.shape", array.shape, f"[n, height, width, {channels}]")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise DataError("images", "NaN or infinite pixels", "finite pixels from 0 to 255")
    return array


def check_calibrated(chip: Chip) -> None:
    """Raise SpecError unless every layer knows its input scale and converter range."""
    if not chip.calibrated:
        raise SpecError("chip", "not calibrated", "a calibrated chip: xbm.calibrate(chip, images) measures it")


def calibration_key(spec: CrossbarSpec) -> dict[str, Any]:
    """The fields of a spec that decide its converter ranges; equal keys may share measured ranges."""
    curve = {} if spec.curve is None else {"curve": repr(spec.curve)}
    return curve | {
        "rows": spec.rows,
        "weight_bits": spec.weight_bits,
        "input_bits": spec.input_bits,
        "dac_bits": spec.dac_bits or spec.input_bits,
        "encoding": spec.encoding,
        "subtract": spec.subtract,
        "negative_inputs": spec.negative_inputs,
        "cell_bits": spec.cell_bits,
        "per": spec.adc.per,
        "percentile": spec.adc.percentile,
        "row_order": spec.row_order,
    }


def _layer_specs(network: Network, spec: CrossbarSpec, rules: Rules) -> dict[str, CrossbarSpec]:
    """The spec of every crossbar layer, in network order."""
    candidates = [path for path in network.kernels if path != network.head]
    for pattern in rules:
        if not fnmatch.filter(candidates, pattern):
            raise ModelError("rules", pattern, "a pattern that matches one of: " + ", ".join(candidates))
    chosen: dict[str, CrossbarSpec] = {}
    for path in candidates:
        matched = next((pattern for pattern in rules if fnmatch.fnmatchcase(path, pattern)), None)
        layer_spec = spec if matched is None else rules[matched]
        if layer_spec is not None:
            chosen[path] = layer_spec
    return chosen


def _program_layer(backbone: Backbone, path: str, spec: CrossbarSpec, key: jax.Array) -> Tiles:
    network, measured = backbone.network, backbone.calibration
    kernel, conv = backbone.arrays[f"{path}/kernel"].reshape(network.kernel_shape(path)), network.convs.get(path)
    if measured is None:
        return program_kernel(kernel, plan_kernel(kernel, spec, conv), key)
    signed = path in measured.signed
    scale = measured.input_peak[path] / input_code_limits(spec.input_bits, signed)[1]
    tiles = program_kernel(kernel, plan_kernel(kernel, spec, conv, signed_inputs=signed), key, input_scale=scale)
    return tiles if tiles.adc is not None else tiles.replace(adc=_measured_range(measured, path, spec))


def _measured_range(measured: Calibration, path: str, spec: CrossbarSpec) -> Any:
    """The converter grid that came with the weights, where it was measured for this spec."""
    if spec.adc.bits is None or dict(measured.spec) != calibration_key(spec):
        return None
    low, high = (jnp.full((1, 1, 1, 1), limit, jnp.float32) for limit in measured.adc[path])
    return snapped_range(low, high, spec.adc.bits)

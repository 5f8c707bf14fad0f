"""The chip: a backbone written onto crossbars, once. A frozen pytree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import CrossbarSpec, Tiles, at_time, nominal_weights, with_lines
from xbm_jax.crossbar import plan as plan_kernel
from xbm_jax.crossbar import program as program_kernel
from xbm_jax.crossbar.devices.ages import check_age
from xbm_jax.crossbar.primitives.adc import snapped_range
from xbm_jax.crossbar.primitives.quantise import input_code_limits
from xbm_jax.crossbar.validate import unstorable
from xbm_jax.errors import ModelError, SpecError, warn
from xbm_jax.models.from_module import Module, backbone_from_module
from xbm_jax.models.inputs import check_image_inputs
from xbm_jax.models.network import Backbone, Calibration, Network
from xbm_jax.models.rules import LayerSpecs, layer_specs
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import checked_key, named

__all__ = [
    "Chip",
    "another",
    "array_weights",
    "calibration_key",
    "check_calibrated",
    "check_inputs",
    "digital_weights",
    "program",
    "redrawn",
]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chip:
    """A programmed backbone. Every leaf is frozen: no gradient, no optimizer moment, no task changes one.

    Attributes:
        tiles: programmed kernels by layer path.
        digital: arrays that stayed digital (biases, kernels of digital layers), by array path.
        norms: the source task's norm parameters, ``{path: {"scale", "bias"}}``; some norms have one of them.
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

    @property
    def noisy(self) -> bool:
        """Whether reads draw noise, and so need a key."""
        return any(tiles.noisy for tiles in self.tiles.values())

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

    @numpy_promotion
    def with_lines(self) -> Chip:
        """The same chip with what gains by line need kept beside its pairs, see :func:`xbm_jax.crossbar.with_lines`.

        What it answers and who it is stay the same; tasks by line are read faster, most of all behind resistive wires.
        """
        return self.replace(tiles={path: with_lines(layer) for path, layer in self.tiles.items()})

    @property
    def num_features(self) -> int:
        """Inputs of the head."""
        return self.network.shapes[f"{self.network.head}/kernel"][0]


@numpy_promotion
def program(
    backbone: Backbone | Module,
    spec: CrossbarSpec,
    key: jax.Array,
    *,
    rules: LayerSpecs | None = None,
    inputs: Any = None,
    variables: Mapping[str, Any] | None = None,
    head: str | None = None,
    call: Mapping[str, Any] | None = None,
) -> Chip:
    """Write a backbone onto crossbars. Traceable in ``key``: ``vmap`` over keys is a population of chips.

    Args:
        backbone: pretrained network, or a Flax module, NNX or Linen, which becomes one by
            :func:`xbm_jax.models.backbone_from_module`. A module of uint8 images has preprocessing to name: call that.
        spec: the arrays of every layer that no rule names.
        key: this chip's random draws; each layer folds its path in.
        rules: layers that get another spec (a :class:`xbm_jax.crossbar.ChannelOrder`, say) or stay digital, by path,
            :class:`~xbm_jax.models.Where` or a function of a :class:`~xbm_jax.models.Layer`. The head stays digital:
            each task brings its own. What no crossbar path knows stays digital too: :func:`digital_weights` says how
            much.
        inputs, variables, head, call: of a module, as :func:`xbm_jax.models.network_from_module` has them.

    A backbone that came with measurements is calibrated by them where they apply: input scales for any spec,
    converter ranges for the spec that they were measured with. Otherwise call ``calibrate(chip, images)``.

    Raises:
        SpecError: ``key`` is not one key, or a layer has other channels than its row order. ModelError: rules that
            decide for no layer, or a module that no chip answers for.
    """
    key = checked_key(key)
    described = {"inputs": inputs, "variables": variables, "head": head, "call": call}
    if not isinstance(backbone, Backbone):
        backbone = backbone_from_module(backbone, **described)
    elif given := [name for name, value in described.items() if value is not None]:
        raise ModelError(given[0], "given beside a Backbone", "None: it is for a Flax module")
    network, arrays = backbone.network, backbone.arrays
    specs = layer_specs(network, spec, rules)
    _warn_of_what_no_file_holds(specs)
    tiles = {path: _program_layer(backbone, path, layer_spec, named(key, path)) for path, layer_spec in specs.items()}
    norms = {path: network.norm_arrays(path) for path in network.norms}
    owned = norms | {network.head: ("kernel", "bias")}
    taken = {f"{path}/kernel" for path in tiles} | {f"{path}/{k}" for path, names in owned.items() for k in names}
    taken |= {f"{path}/{k}" for path in network.batch_norms for k in ("mean", "var")}
    return Chip(
        tiles=tiles,
        digital={p: a for p, a in arrays.items() if p not in taken},
        norms={p: {k: arrays[f"{p}/{k}"] for k in names} for p, names in norms.items()},
        stats={p: {k: arrays[f"{p}/{k}"] for k in ("mean", "var")} for p in network.batch_norms},
        head={k: arrays[f"{network.head}/{k}"] for k in ("kernel", "bias")},
        network=network,
    )


def digital_weights(chip: Chip) -> dict[str, int]:
    """How many weights stayed digital, by array path: floating arrays of more than one axis, biases left out.

    Those of layers that a rule keeps off the arrays, of layers that no crossbar path knows (``nnx.Embed``) and free
    matrices. The head is not among them: every task brings its own.
    """
    biases = {f"{path}/bias" for path in chip.network.kernels}
    return {
        path: int(array.size)
        for path, array in chip.digital.items()
        if array.ndim > 1 and path not in biases and jnp.issubdtype(array.dtype, jnp.inexact)
    }


def array_weights(chip: Chip) -> int:
    """How many weights are on arrays."""
    return sum(math.prod(tiles.plan.kernel_shape) for tiles in chip.tiles.values())


@numpy_promotion
def another(chip: Chip, kernels: Mapping[str, jax.Array], key: jax.Array) -> Chip:
    """Another chip of the same design: plans, input scales and calibrated ranges of ``chip``, draws of its own.

    What :func:`program` makes of ``key`` with these scales and ranges, but traceable in all arguments: nothing is
    decided anew. ``kernels``: ``backbone.kernel(path)`` by layer path.
    """
    tiles = {}
    for path, layer in chip.tiles.items():
        made = program_kernel(kernels[path], layer.plan, named(key, path), input_scale=layer.input_scale)
        tiles[path] = made if made.adc is not None else made.replace(adc=layer.adc)
    return chip.replace(tiles=tiles)


@numpy_promotion
def redrawn(chip: Chip, key: jax.Array) -> Chip:
    """The same levels, scales and ranges on cells and converters of another chip's draws, right after programming.

    Traceable: a fresh chip for every training step, say (``adapt(..., chip_of_step=redrawn)``).
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


def check_inputs(chip: Chip, inputs: Any) -> Any:
    """``inputs`` as NumPy arrays if they are what the chip's network takes; else raise DataError."""
    network = chip.network
    if network.inputs is not None:
        return network.inputs.check(inputs)
    assert network.preprocess is not None  # what takes images has one
    return check_image_inputs(inputs, len(network.preprocess.mean))


def check_calibrated(chip: Chip) -> None:
    """Raise SpecError unless every layer knows its input scale and converter range."""
    if not chip.calibrated:
        raise SpecError("chip", "not calibrated", "a calibrated chip: xbm.calibrate(chip, images) measures it")


def calibration_key(spec: CrossbarSpec) -> dict[str, Any]:
    """What of a spec decides the column sums of ideal cells; equal keys may share measured ranges.

    What level 0 conducts counts wherever no pair cancels it, ``g_min / g_step = (L - 1) / (on_off - 1)`` levels; a
    curve makes conductances count as such.
    """
    cell, own = spec.cell, {}
    if spec.encoding == "offset" or spec.subtract == "digital":
        own["level_0"] = spec.max_level / (cell.on_off - 1)
    if spec.curve is not None:
        own |= {"curve": repr(spec.curve), "g_max_siemens": cell.g_max_siemens, "g_min_siemens": cell.g_min_siemens}
    return own | {
        "rows": spec.tile_height,
        "weight_bits": spec.weight_bits,
        "input_bits": spec.input_bits,
        "dac_bits": spec.dac_bits or spec.input_bits,
        "encoding": spec.encoding,
        "subtract": spec.subtract,
        "negative_inputs": spec.negative_inputs,
        "cell_bits": spec.cell_bits,
        "per": spec.adc.per,
        "percentile": spec.adc.percentile,
        "row_order": str(spec.row_order),
    }


def _warn_of_what_no_file_holds(specs: Mapping[str, CrossbarSpec]) -> None:
    for spec in dict.fromkeys(specs.values()):
        if found := unstorable("spec", spec):
            text = f"{found} is nothing that a file can hold: this chip and its tasks can be used but not stored"
            warn(text)


def _program_layer(backbone: Backbone, path: str, spec: CrossbarSpec, key: jax.Array) -> Tiles:
    network, measured = backbone.network, backbone.calibration
    kernel, conv = backbone.kernel(path), network.forms[path].conv
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

"""Backbones, and the chip that one becomes."""

from xbm_jax.models.calibration import (
    calibrate,
    measure_inputs,
    measure_norms,
    measure_ranges,
    norm_statistics,
    source_trained,
)
from xbm_jax.models.chip import (
    Chip,
    another,
    array_weights,
    check_calibrated,
    check_inputs,
    digital_weights,
    program,
    redrawn,
)
from xbm_jax.models.from_module import backbone_from_module, network_from_module
from xbm_jax.models.inputs import InputSpec
from xbm_jax.models.modules.forms import Form
from xbm_jax.models.modules.layers import register_layer
from xbm_jax.models.network import Backbone, Calibration, Network, backbone
from xbm_jax.models.passes import forward, initial_trained
from xbm_jax.models.preprocess import PREPROCESSES, Preprocess, load_preprocess
from xbm_jax.models.reads import driven_lines, reads_in_order, reads_per_example
from xbm_jax.models.registry import MODELS, load_backbone, named_network
from xbm_jax.models.rules import Layer, LayerSpecs, Where
from xbm_jax.models.variables import flax_variables, held_weights

__all__ = [
    "MODELS",
    "PREPROCESSES",
    "Backbone",
    "Calibration",
    "Chip",
    "Form",
    "InputSpec",
    "Layer",
    "LayerSpecs",
    "Network",
    "Preprocess",
    "Where",
    "another",
    "array_weights",
    "backbone",
    "backbone_from_module",
    "calibrate",
    "check_calibrated",
    "check_inputs",
    "digital_weights",
    "driven_lines",
    "flax_variables",
    "forward",
    "held_weights",
    "initial_trained",
    "load_backbone",
    "load_preprocess",
    "measure_inputs",
    "measure_norms",
    "measure_ranges",
    "named_network",
    "network_from_module",
    "norm_statistics",
    "program",
    "reads_in_order",
    "reads_per_example",
    "redrawn",
    "register_layer",
    "source_trained",
]

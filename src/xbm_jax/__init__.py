"""Multi-task adaption on simulated ReRAM crossbars: program a backbone once, learn tasks as column masks.

import xbm_jax as xbm

backbone = xbm.load_backbone("cifar-resnet20")
chip = xbm.program(backbone, xbm.CrossbarSpec(rows=64), key=jax.random.key(0))
fashion = xbm.for_chip(chip, xbm.load("fashion_mnist"))
task = xbm.adapt(chip, fashion, method=xbm.methods.xbm(), key=jax.random.key(1))
bank = xbm.MaskBank.create("bank", chip)
bank.put("fashion_mnist", task)
predict = xbm.serve(chip, bank)
"""

from importlib import metadata as _metadata

from xbm_jax import banks, crossbar, data, errors, hardware, masks, models, report, serving, tasks, training
from xbm_jax.banks import MaskBank, load_bank, load_chip, save_chip
from xbm_jax.crossbar import (
    Adc,
    Cell,
    ChannelOrder,
    CrossbarSpec,
    Device,
    Faults,
    Gaussian,
    Ideal,
    MiloCurve,
    Wires,
    spec_by_name,
)
from xbm_jax.data import Dataset, load
from xbm_jax.errors import (
    BankError,
    DataError,
    Interrupted,
    MethodError,
    ModelError,
    OutputError,
    SpecError,
    TrainingError,
    WeightsError,
    XbmError,
)
from xbm_jax.layout import mesh
from xbm_jax.masks import Method, methods
from xbm_jax.models import Backbone, Chip, calibrate, load_backbone, measure_norms, measure_ranges, program
from xbm_jax.serving import Server, serve
from xbm_jax.tasks import (
    Population,
    Task,
    evaluate,
    flax_variables,
    forward,
    inspect,
    population_accuracy,
    predict,
    source_task,
)
from xbm_jax.training import Recipe, Saves, Schedule, TrainConfig, adapt, adapt_together, for_chip

try:
    __version__ = _metadata.version("xbm_jax")
except _metadata.PackageNotFoundError:  # a source tree on PYTHONPATH, where nothing can be installed
    __version__ = "not installed"

__all__ = [
    "Adc",
    "Backbone",
    "BankError",
    "Cell",
    "ChannelOrder",
    "Chip",
    "CrossbarSpec",
    "DataError",
    "Dataset",
    "Device",
    "Faults",
    "Gaussian",
    "Ideal",
    "Interrupted",
    "MaskBank",
    "Method",
    "MethodError",
    "MiloCurve",
    "ModelError",
    "OutputError",
    "Population",
    "Recipe",
    "Saves",
    "Schedule",
    "Server",
    "SpecError",
    "Task",
    "TrainConfig",
    "TrainingError",
    "WeightsError",
    "Wires",
    "XbmError",
    "adapt",
    "adapt_together",
    "banks",
    "calibrate",
    "crossbar",
    "data",
    "errors",
    "evaluate",
    "flax_variables",
    "for_chip",
    "forward",
    "hardware",
    "inspect",
    "load",
    "load_backbone",
    "load_bank",
    "load_chip",
    "masks",
    "measure_norms",
    "measure_ranges",
    "mesh",
    "methods",
    "models",
    "population_accuracy",
    "predict",
    "program",
    "report",
    "save_chip",
    "serve",
    "serving",
    "source_task",
    "spec_by_name",
    "tasks",
    "training",
]

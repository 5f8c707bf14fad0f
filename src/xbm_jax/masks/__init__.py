"""What is learned: a method composes granularity, alphabet, estimator, a norm policy and a head."""

from xbm_jax.masks import methods
from xbm_jax.masks.alphabet import Alphabet, Binary, Shift, Soft, Ternary
from xbm_jax.masks.arrays import ArrayChoice, most_wanted
from xbm_jax.masks.budget import Budget
from xbm_jax.masks.estimator import Annealed, Estimator, Identity, Sigmoid
from xbm_jax.masks.granularity import Column, Filter, Granularity, Kernel, Line, Weight
from xbm_jax.masks.heads import Head, Linear
from xbm_jax.masks.levels import Levels
from xbm_jax.masks.lowrank import LowRank
from xbm_jax.masks.methods import Method
from xbm_jax.masks.rules import Codes, Gains, Masked, Rewritten, Rule

__all__ = [
    "Alphabet",
    "Annealed",
    "ArrayChoice",
    "Binary",
    "Budget",
    "Codes",
    "Column",
    "Estimator",
    "Filter",
    "Gains",
    "Granularity",
    "Head",
    "Identity",
    "Kernel",
    "Levels",
    "Line",
    "Linear",
    "LowRank",
    "Masked",
    "Method",
    "Rewritten",
    "Rule",
    "Shift",
    "Sigmoid",
    "Soft",
    "Ternary",
    "Weight",
    "methods",
    "most_wanted",
]

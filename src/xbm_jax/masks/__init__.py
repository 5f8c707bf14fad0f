"""What is learned: a method composes granularity, alphabet, estimator and a norm policy."""

from xbm_jax.masks import methods
from xbm_jax.masks.alphabet import Alphabet, Binary
from xbm_jax.masks.estimator import Estimator, Identity, Sigmoid
from xbm_jax.masks.granularity import Column, Filter, Granularity, Kernel, Weight
from xbm_jax.masks.methods import Method
from xbm_jax.masks.rules import Masked, Rewritten, Rule

__all__ = [
    "Alphabet",
    "Binary",
    "Column",
    "Estimator",
    "Filter",
    "Granularity",
    "Identity",
    "Kernel",
    "Masked",
    "Method",
    "Rewritten",
    "Rule",
    "Sigmoid",
    "Weight",
    "methods",
]

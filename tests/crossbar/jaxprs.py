"""What a traced function computes with."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.extend

from xbm_jax.crossbar.primitives.platforms import known


def traced(function: Callable[..., Any], *args: Any) -> Any:
    """The jaxpr of a function as a CPU computes it; of both forms, if it has two, that one alone."""
    with known(True):
        return jax.make_jaxpr(function)(*args)


def products(jaxpr: Any) -> Iterator[Any]:
    """Every product and convolution of a jaxpr, in its nested jaxprs too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)

"""What a traced function computes with."""

from collections.abc import Iterator
from typing import Any

import jax.extend


def products(jaxpr: Any) -> Iterator[Any]:
    """Every product and convolution of a jaxpr, in its nested jaxprs too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)

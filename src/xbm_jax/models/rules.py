"""Which layers get a spec of their own or stay digital: by path, kind, shape, or a function of a user's own."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xbm_jax.crossbar import CrossbarSpec
from xbm_jax.crossbar.writing.orders import check_order_fits
from xbm_jax.errors import ModelError
from xbm_jax.models.network import Network

__all__ = ["Layer", "LayerSpecs", "Where", "layer_specs"]


class Layer(NamedTuple):
    """What a rule may go by: a layer's path, its kind (``"Conv"``), and the shape of its own kernel."""

    path: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Where:
    """The layers that are all of this.

    Args:
        path: a shell-style pattern.
        kind: the class of a layer: ``"Conv"``, ``"Linear"``, ``"Einsum"`` and so on; a Linen ``Dense`` is a
            ``"Linear"``, a ``DenseGeneral`` a ``"LinearGeneral"``.
        shape: sizes of the kernel's axes, ``None`` for any.
    """

    path: str = "*"
    kind: str | None = None
    shape: tuple[int | None, ...] | None = None

    def __call__(self, layer: Layer) -> bool:
        """Whether a layer is."""
        if not fnmatch.fnmatchcase(layer.path, self.path) or self.kind not in (None, layer.kind):
            return False
        if self.shape is None:
            return True
        fits = [own in (None, size) for own, size in zip(self.shape, layer.shape, strict=False)]
        return len(self.shape) == len(layer.shape) and all(fits)


LayerSpecs = Mapping[Any, CrossbarSpec | None]  # keys of a mapping are invariant: a user's dict of Where alone is one
"""Path patterns, a :class:`Where` or functions of a :class:`Layer` (first match wins) to a spec of their own, or
``None`` for a digital layer."""


def layer_specs(network: Network, spec: CrossbarSpec, rules: LayerSpecs | None) -> dict[str, CrossbarSpec]:
    """The spec of every layer that goes onto arrays, in network order.

    Raises:
        ModelError: a rule that matches no layer, or only such as earlier rules decide for; what is no rule. SpecError:
            a layer that has other channels than its row order.
    """
    if not isinstance(rules, Mapping | None):
        raise ModelError("rules", rules, "a mapping from path patterns to specs, None for layers that stay digital")
    candidates = [
        Layer(path, network.kinds[path], network.shapes[f"{path}/kernel"])
        for path in network.kernels
        if path != network.head
    ]
    decided: dict[str, tuple[Any, CrossbarSpec | None]] = {}
    for rule, own in (rules or {}).items():
        if not isinstance(own, CrossbarSpec | None):
            raise ModelError(f"rules[{rule!r}]", own, "a CrossbarSpec, or None for a layer that stays digital")
        matched = _matched(rule, candidates)
        if all(path in decided for path in matched):
            earlier = ", ".join(f"{path} by {decided[path][0]!r}" for path in matched)
            raise ModelError("rules", rule, f"a rule that decides for a layer; earlier ones do already: {earlier}")
        decided |= {path: (rule, own) for path in matched if path not in decided}
    chosen = {layer.path: decided.get(layer.path, (None, spec))[1] for layer in candidates}
    specs = {path: own for path, own in chosen.items() if own is not None}
    for path, own in specs.items():
        check_order_fits(f"{path}.row_order", own.row_order, network.kernel_shape(path))
    return specs


def _matched(rule: Any, candidates: list[Layer]) -> list[str]:
    """Paths of the layers that a rule matches."""
    test = Where(rule) if isinstance(rule, str) else rule
    found = [layer.path for layer in candidates if test(layer)] if callable(test) else []
    if not found:
        by_path = isinstance(rule, str)
        among = ", ".join(
            f"{path}" if by_path else f"{path} ({kind} {list(shape)})" for path, kind, shape in candidates
        )
        raise ModelError("rules", rule, "a pattern that matches one of: " + among)
    return found

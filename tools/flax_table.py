"""The table of ``docs/models.md``: what of Flax goes onto arrays, stays digital, or is refused, and why.

Command:   python -m tools.flax_table    writes the table into the page.

Each line is a small module that is tried; what is said of it is what came of that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from xbm_jax.errors import ModelError
from xbm_jax.models import network_from_module

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
EXAMPLE = jax.ShapeDtypeStruct((6, 6, 8), "float32")


class Holder(nnx.Module):
    """A layer of choice, the mean over pixels, a head."""

    def __init__(self, make: Callable[[nnx.Rngs], Any], how: Callable[..., Any]) -> None:
        rngs = nnx.Rngs(0)
        self.held, self.how = make(rngs), how
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.how(self.held, x).mean((1, 2)))


class LinenHolder(nn.Module):
    """The same of Linen."""

    body: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(self.body(x).mean((1, 2)))


class Inner(nn.Module):
    """A dense layer in a module that a transformation takes."""

    @nn.compact
    def __call__(self, x: jax.Array, *_: Any) -> Any:
        y = nn.Dense(8)(x)
        return (y, None) if _ else y


def _plain(held: Any, x: jax.Array) -> jax.Array:
    return held(x)


def _linear(rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(8, 8, rngs=rngs)


def _shared(rngs: nnx.Rngs) -> nnx.List:
    one, other = _linear(rngs), _linear(rngs)
    other.kernel = one.kernel
    return nnx.List([one, other])


def _stack(rngs: nnx.Rngs) -> Any:
    return nnx.split_rngs(splits=2)(nnx.vmap(_linear))(rngs)


def _in_turn(held: Any, x: jax.Array) -> jax.Array:
    for layer in held:
        x = layer(x)
    return x


def _scan(held: Any, x: jax.Array) -> jax.Array:
    return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, held)


NNX: dict[str, tuple[Callable[[nnx.Rngs], Any], Callable[..., Any]]] = {
    "`Linear`": (_linear, _plain),
    "`LinearGeneral` over any axes": (
        lambda r: nnx.LinearGeneral((6, 8), 8, axis=(1, -1), rngs=r),
        lambda m, x: m(x)[:, None],
    ),
    "`Einsum`": (lambda r: nnx.Einsum("bhwc,cnd->bhnwd", (8, 1, 8), rngs=r), lambda m, x: m(x)[:, :, 0]),
    "`MultiHeadAttention`": (lambda r: nnx.MultiHeadAttention(2, 8, decode=False, rngs=r), _plain),
    "`Conv` 1-D, causal": (lambda r: nnx.Conv(8, 8, (3,), padding="CAUSAL", rngs=r), _plain),
    "`Conv` 2-D, grouped, dilated": (
        lambda r: nnx.Conv(8, 8, (3, 3), feature_group_count=2, kernel_dilation=2, rngs=r),
        _plain,
    ),
    "`Conv` 3-D": (lambda r: nnx.Conv(8, 8, (1, 3, 3), rngs=r), lambda m, x: m(x[:, None])[:, 0]),
    "`ConvTranspose`": (lambda r: nnx.ConvTranspose(8, 8, (3, 3), strides=2, rngs=r), _plain),
    "a layer called twice": (_linear, lambda m, x: m(m(x))),
    "a layer under two names": (lambda r: nnx.List([one := _linear(r), one]), _in_turn),
    "`BatchNorm`, `LayerNorm`": (lambda r: nnx.List([nnx.BatchNorm(8, rngs=r), nnx.LayerNorm(8, rngs=r)]), _in_turn),
    "dropout": (lambda r: nnx.Dropout(0.5, rngs=r), _plain),
    "`GroupNorm`": (lambda r: nnx.GroupNorm(8, 2, rngs=r), _plain),
    "`RMSNorm`, `LayerNorm` without bias": (
        lambda r: nnx.List([nnx.RMSNorm(8, rngs=r), nnx.LayerNorm(8, use_bias=False, rngs=r)]),
        _in_turn,
    ),
    "a norm with neither scale nor bias": (lambda r: nnx.RMSNorm(8, use_scale=False, rngs=r), _plain),
    "`Embed`, its tied output": (
        lambda r: nnx.Embed(8, 8, rngs=r),
        lambda m, x: m(jnp.argmax(m.attend(x), -1)),
    ),
    "a free matrix": (lambda r: nnx.Param(jnp.eye(8)), lambda m, x: x @ m[...]),
    "`ConvTranspose` that wraps around": (
        lambda r: nnx.ConvTranspose(8, 8, (3, 3), padding="CIRCULAR", rngs=r),
        _plain,
    ),
    "a subclass with a call of its own": (
        lambda r: type("Own", (nnx.Linear,), {"__call__": lambda self, x: 2 * x @ self.kernel[...]})(8, 8, rngs=r),
        _plain,
    ),
    "`LoRALinear`": (lambda r: nnx.LoRALinear(8, 8, lora_rank=2, rngs=r), _plain),
    "one array in two layers": (_shared, _in_turn),
    "a kernel that its module reads too": (_linear, lambda m, x: m(x) @ m.kernel[...].T),
    "`WeightNorm`, `SpectralNorm`": (lambda r: nnx.WeightNorm(_linear(r), rngs=r), _plain),
    "`nnx.scan` over stacked layers": (_stack, _scan),
    "`nnx.remat`, `jax.checkpoint`": (_linear, lambda m, x: nnx.remat(_plain)(m, x)),
    "`nnx.jit` inside": (_linear, lambda m, x: nnx.jit(_plain)(m, x)),
    "`RNN`": (lambda r: nnx.RNN(nnx.GRUCell(8, 8, rngs=r)), lambda m, x: m(x[:, 0])[:, None]),
    "a kernel for each entry of an axis": (lambda r: nnx.Einsum("bhwc,hcd->bhwd", (6, 8, 8), rngs=r), _plain),
    "a masked `Conv`": (lambda r: nnx.Conv(8, 8, (3, 3), mask=jnp.ones((3, 3, 8, 8)), rngs=r), _plain),
    "`BatchNorm` called twice": (lambda r: nnx.BatchNorm(8, rngs=r), lambda m, x: m(m(x))),
    "`BatchNorm` without scale or bias": (lambda r: nnx.BatchNorm(8, use_scale=False, rngs=r), _plain),
    "`BatchNorm` of the batch's statistics": (
        lambda r: nnx.BatchNorm(8, rngs=r),
        lambda m, x: m(x, use_running_average=False),
    ),
    "dropout that draws in evaluation": (
        lambda r: nnx.Dropout(0.5, rngs=r),
        lambda m, x: m(x, deterministic=False),
    ),
    "another product (`dot_general=`)": (
        lambda r: nnx.Linear(8, 8, dot_general=jnp.tensordot, rngs=r),
        _plain,
    ),
}

LINEN: dict[str, Callable[[jax.Array], jax.Array]] = {
    "`Dense`, `DenseGeneral`, `Conv`": lambda x: nn.Conv(8, (3, 3))(nn.DenseGeneral(8)(nn.Dense(8)(x))),
    "`MultiHeadDotProductAttention`": lambda x: nn.MultiHeadDotProductAttention(2)(x, x, deterministic=True),
    "`BatchNorm`, `LayerNorm`, `GroupNorm`": lambda x: nn.GroupNorm(2)(
        nn.LayerNorm()(nn.BatchNorm(use_running_average=True)(x))
    ),
    "`RMSNorm`": lambda x: nn.RMSNorm()(x),
    "`Embed`": lambda x: nn.Embed(8, 8)(jnp.argmax(x, -1)),
    "`nn.scan`": lambda x: nn.scan(Inner, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)()(
        x, None
    )[0],
    "`nn.remat`": lambda x: nn.remat(Inner)()(x),
}


def fates() -> list[tuple[str, str, str]]:
    """``(what, on arrays, digital or refused, why)`` of every line."""
    found = [(f"NNX {what}", *_fate(Holder(make, how), None)) for what, (make, how) in NNX.items()]
    for what, body in LINEN.items():
        module = LinenHolder(body)
        variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, *EXAMPLE.shape)))
        found.append((f"Linen {what}", *_fate(module, variables)))
    return found


def _fate(module: Any, variables: Any) -> tuple[str, str]:
    try:
        network = network_from_module(
            module, head="head" if variables is None else None, variables=variables, inputs=EXAMPLE
        )
    except ModelError as error:
        value = getattr(error.value, "__name__", error.value)
        return "refused", f"{value}: {error.allowed}"
    kernels, norms = [p for p in network.kernels if p != network.head], network.norms
    if kernels:
        return "on arrays", ", ".join("x".join(map(str, network.kernel_shape(path))) for path in kernels)
    if norms:
        owned = dict.fromkeys(name for path in norms for name in network.norm_arrays(path))
        return "the task's", f"{' and '.join(owned)}; digital"
    return "digital", "frozen, as the module computes it"


def table() -> str:
    """The table in Markdown."""
    rows = [f"| {what} | {fate} | {why.replace('|', '/')} |" for what, fate, why in fates()]
    return "\n".join(["| | | kernels, or why |", "|---|---|---|", *rows])


def page(text: str) -> str:
    """The page's text with the table as it is now."""
    before, _, rest = text.partition("<!-- table -->\n")
    _, mark, after = rest.partition("<!-- end of table -->")
    return f"{before}<!-- table -->\n{table()}\n{mark}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

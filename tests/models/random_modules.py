"""Random small NNX modules: layers of every kind with options of every kind, shared, nested and wrapped.

Weights are whole numbers from -127 to 127 times a power of two, 127 in every column, so that 8-bit cells hold them
exactly: what a chip answers without rounding its inputs is the module's own answer, to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

IMAGE = 8
CLASSES = 5

Make = Callable[[np.random.Generator, int, nnx.Rngs], tuple[Any, int]]
"""``(generator, channels, rngs) -> (module of NHWC arrays, channels of its answer)``."""


class Network(nnx.Module):
    """A stem, some random parts, the mean over pixels, a head."""

    def __init__(self, seed: int, *, rngs: nnx.Rngs) -> None:
        draw = np.random.default_rng(seed)
        width = int(draw.choice([4, 6, 8]))
        self.stem = nnx.Conv(3, width, (3, 3), strides=int(draw.integers(1, 3)), rngs=rngs)
        parts = []
        for _ in range(int(draw.integers(1, 4))):
            part, width = _part(draw, width, rngs)
            parts.append(part)
        self.parts = nnx.List(parts)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for part in self.parts:
            x = part(x)
        return self.head(x.mean((1, 2)))


class Tagged(nnx.Module):
    """A part under the name of what made it."""

    def __init__(self, tag: str, module: Any) -> None:
        self.tag, self.module = tag, module

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.module(x)


def _part(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Tagged, int]:
    weights = np.array([0.3 if name in RARE else 1.0 for name in PARTS])
    name = str(draw.choice(list(PARTS), p=weights / weights.sum()))
    module, width = PARTS[name](draw, width, rngs)
    return Tagged(name, module), width


# ---------------------------------------------------------------------------------------------------------------------
# Layers


def _conv(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """Two-dimensional, mostly with options that a crossbar computes."""
    paddings: list[Any] = ["SAME", "VALID", "same", 1, 0, (1, 0), ((0, 1), (1, 0)), (1, 1)]
    odd: list[Any] = ["CIRCULAR", "REFLECT", "CAUSAL", "SAME_LOWER", "NONSENSE", ((-1, 1), (0, 0)), (1, 1, 1), [1, 1]]
    out = int(draw.choice([4, 6, 8]))
    options: dict[str, Any] = {"padding": _one(draw, odd if draw.random() < 0.25 else paddings)}
    options["strides"] = _one(draw, [1, 2, (1, 2), None, (1, 1)])
    options["kernel_dilation"] = _one(draw, [1, 1, 2, (1, 2)])
    options["feature_group_count"] = _one(draw, [g for g in (1, 1, 1, 2, width) if width % g == out % g == 0])
    options["use_bias"] = bool(draw.random() < 0.5)
    if draw.random() < 0.1:
        options["input_dilation"] = 2
    if draw.random() < 0.1:
        options["mask"] = np.tril(np.ones((3, 3, width // options["feature_group_count"], out)))
    size = _one(draw, [(3, 3), (1, 1), (2, 3)])
    return nnx.Conv(width, out, (3, 3) if "mask" in options else size, **options, **_dtypes(draw), rngs=rngs), out


def _conv_1d(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    return nnx.Conv(width, 4, _one(draw, [3, (3,)]), padding=_one(draw, ["SAME", "CAUSAL"]), rngs=rngs), 4


def _conv_3d(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    conv = nnx.Conv(width, 4, (1, 3, 3), rngs=rngs)
    return _Around(lambda x: x[:, None], conv, lambda x: x[:, 0]), 4


def _conv_transpose(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    options = {"strides": _one(draw, [(1, 1), (2, 2), 2]), "padding": _one(draw, ["SAME", "VALID", "CIRCULAR", 1])}
    options["kernel_dilation"] = _one(draw, [None, None, 2])
    return nnx.ConvTranspose(width, 4, _one(draw, [(3, 3), (2, 3)]), **options, rngs=rngs), 4


def _linear(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    out = int(draw.choice([4, 6]))
    options: dict[str, Any] = {"use_bias": bool(draw.random() < 0.5), "precision": _one(draw, [None, "highest"])}
    if draw.random() < 0.15:
        options["dot_general"] = lambda x, k, *args, **kwargs: 2 * jax.lax.dot_general(x, k, *args, **kwargs)
    if draw.random() < 0.1:
        options["preferred_element_type"] = jnp.float32
    return nnx.Linear(width, out, **options, **_dtypes(draw), rngs=rngs), out


def _linear_general(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    if draw.random() < 0.3:
        return nnx.LinearGeneral(width, 4, axis=_one(draw, [(-1,), 3, -1]), rngs=rngs), 4
    split = nnx.LinearGeneral(width, (2, 3), rngs=rngs)
    return nnx.Sequential(split, nnx.relu, nnx.LinearGeneral((2, 3), 4, axis=(-2, -1), rngs=rngs)), 4


def _einsum(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    equation, kernel, bias = _one(
        draw,
        [
            ("...a,ab->...b", (width, 4), (4,)),
            ("nhwa,ab->nhwb", (width, 4), None),
            ("nhwa,ba->nhwb", (4, width), None),
            ("nhwa, ab -> nhwb", (width, 4), (1, 4)),
            ("nhwa,ab->nwhb", (width, 4), (4,)),
        ],
    )
    return nnx.Einsum(equation, kernel, bias, rngs=rngs), 4


def _embed(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    embed = nnx.Embed(3, width, rngs=rngs)
    return _Beside(lambda x: embed_index(x), embed), width


def embed_index(x: jax.Array) -> jax.Array:
    """One of three words for each pixel, whatever the image."""
    return jnp.broadcast_to(jnp.arange(x.shape[2]) % 3, x.shape[:3])


def _batch_norm(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    options: dict[str, Any] = {"momentum": _one(draw, [0.9, 0.5, 0.99]), "epsilon": _one(draw, [1e-5, 1e-2])}
    options["axis"] = _one(draw, [-1, -1, 3, (-1,)])
    for name, value in (("use_fast_variance", False), ("axis_name", "devices"), ("momentum", 1.0), ("use_bias", False)):
        if draw.random() < 0.1:
            options[name] = value
    return nnx.BatchNorm(width, **options, **_dtypes(draw), rngs=rngs), width


def _norm_of_rows(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """Over the image's rows: four of them, by a mean before it."""
    norm: Any = nnx.BatchNorm(4, axis=_one(draw, [1, -3]), rngs=rngs)
    if draw.random() < 0.5:
        norm = nnx.LayerNorm(4, reduction_axes=1, feature_axes=1, rngs=rngs)
    return _Around(lambda x: jax.image.resize(x, (len(x), 4, x.shape[2], width), "nearest"), norm, None), width


def _layer_norm(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    options: dict[str, Any] = {"epsilon": _one(draw, [1e-6, 1e-2]), "use_fast_variance": bool(draw.random() < 0.5)}
    if draw.random() < 0.3:
        options |= _one(draw, [{"reduction_axes": (1, 2, 3)}, {"reduction_axes": 3}, {"feature_axes": (-1,)}])
    if draw.random() < 0.1:
        options["use_scale"] = False
    return nnx.LayerNorm(width, **options, rngs=rngs), width


def _other_norm(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    kinds = [
        lambda: nnx.GroupNorm(width, num_groups=2, rngs=rngs),
        lambda: nnx.RMSNorm(width, rngs=rngs),
        lambda: nnx.InstanceNorm(width, rngs=rngs),
        lambda: nnx.PReLU(),
    ]
    return _one(draw, kinds)(), width


def _attention(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    options: dict[str, Any] = {"normalize_qk": True} if draw.random() < 0.2 else {}
    options |= {"dropout_rate": 0.3, "keep_rngs": True} if draw.random() < 0.5 else {}
    attention = nnx.MultiHeadAttention(2, width, decode=False, **options, rngs=rngs)
    for norm in filter(None, (attention.query_ln, attention.key_ln)):
        norm.use_fast_variance = False  # E[x^2] - E[x]^2 loses digits, otherwise compiled than not
    return attention, width


def _dropout(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """One in four draws in evaluation too."""
    drop = nnx.Dropout(0.5, rngs=rngs)
    return (_Always(drop), width) if draw.random() < 0.25 else (drop, width)


def _weight_norm(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    wrapper = _one(draw, [nnx.WeightNorm, nnx.SpectralNorm])
    return wrapper(nnx.Linear(width, 4, rngs=rngs), rngs=rngs), 4


def _lora(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    if draw.random() < 0.5:
        return nnx.LoRALinear(width, 4, lora_rank=2, rngs=rngs), 4
    return nnx.LoRA(width, 2, 4, base_module=nnx.Linear(width, 4, rngs=rngs), rngs=rngs), 4


def _recurrent(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    kind = _one(draw, [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
    return _Around(lambda x: x[:, 0], nnx.RNN(kind(width, 4, rngs=rngs)), lambda x: x[:, None]), 4


def _one_step(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """A recurrent cell that is called plainly, from a state of zeros."""
    return _Step(nnx.GRUCell(width, 4, rngs=rngs)), 4


# ---------------------------------------------------------------------------------------------------------------------
# What modules do with layers


def _sequential(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    first, width = _part(draw, width, rngs)
    second, width = _part(draw, width, rngs)
    return nnx.Sequential(first, nnx.relu, second), width


def _residual(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    inner = nnx.Sequential(nnx.Conv(width, width, (3, 3), rngs=rngs), nnx.BatchNorm(width, rngs=rngs), nnx.relu)
    return _Residual(inner), width


def _dictionary(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    keys = _one(draw, [("a b", "0"), ("0", "1"), ("x.y", "é"), ("a/b", "c"), ("", "[0]")])
    layers = {key: nnx.Linear(width, width, rngs=rngs) for key in keys}
    holder = _one(draw, [nnx.Dict, nnx.data])
    return _Each(nnx.data(layers) if holder is nnx.data else nnx.Dict(layers)), width


def _tuple(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    layers = tuple(nnx.Conv(width, width, (1, 1), rngs=rngs) for _ in range(2))
    return _Each(nnx.data(dict(enumerate(layers)) if draw.random() < 0.5 else layers)), width


def _shared(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """A layer under two names, or one array in two layers."""
    kinds = [
        lambda: nnx.Linear(width, width, rngs=rngs),
        lambda: nnx.Conv(width, width, (3, 3), rngs=rngs),
        lambda: nnx.LayerNorm(width, rngs=rngs),
        lambda: nnx.BatchNorm(width, rngs=rngs),
    ]
    make = _one(draw, kinds)
    layer = make()
    if draw.random() < 0.6:
        return _Each(nnx.List([layer, layer])), width
    other = make()
    other.bias = layer.bias
    return _Each(nnx.List([layer, other])), width


def _unused(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """A layer that is never called, one whose kernel the module reads, or one that is called and read."""
    return _Reads(nnx.Linear(width, width, rngs=rngs), str(_one(draw, ["neither", "read", "both"]))), width


def _transformed(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    inner, width = _part(draw, width, rngs)
    return _Transformed(inner, str(_one(draw, ["remat", "jit", "closed", "jit of none"]))), width


def _scanned(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    stack = nnx.split_rngs(splits=2)(nnx.vmap(lambda keys: nnx.Linear(width, width, rngs=keys)))(rngs)
    return _Scanned(stack), width


def _state(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """Indices, flags, free matrices, arrays outside of Variables, a Variable of none."""
    kind = str(_one(draw, ["index", "flag", "matrix", "bare", "half", "complex", "tree", "count"]))
    return _State(kind, width), width


def _subclass(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    kind = _one(draw, [_Renamed, _Standardised])
    return kind(width, 4, (3, 3), rngs=rngs), 4


def _arguments(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    return _Arguments(nnx.BatchNorm(width, rngs=rngs), int(draw.integers(4))), width


def _wide(draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> tuple[Any, int]:
    """A convolution of inputs with one more axis, or one fewer."""
    conv = nnx.Conv(width, 4, (3, 3), rngs=rngs)
    if draw.random() < 0.5:
        return _Around(lambda x: x[:, None], conv, lambda x: x[:, 0]), 4
    return _Around(lambda x: x.mean(0), conv, lambda x: x[None]), 4


PARTS: dict[str, Make] = {
    "Conv": _conv,
    "Conv again": _conv,
    "Conv 1-D": _conv_1d,
    "Conv 3-D": _conv_3d,
    "ConvTranspose": _conv_transpose,
    "Linear": _linear,
    "LinearGeneral": _linear_general,
    "Einsum": _einsum,
    "Embed": _embed,
    "BatchNorm": _batch_norm,
    "norm of rows": _norm_of_rows,
    "LayerNorm": _layer_norm,
    "other norm": _other_norm,
    "MultiHeadAttention": _attention,
    "Dropout": _dropout,
    "WeightNorm": _weight_norm,
    "LoRA": _lora,
    "RNN": _recurrent,
    "cell": _one_step,
    "Sequential": _sequential,
    "residual": _residual,
    "Dict": _dictionary,
    "tuple": _tuple,
    "shared": _shared,
    "unused": _unused,
    "transformed": _transformed,
    "scanned": _scanned,
    "state": _state,
    "subclass": _subclass,
    "arguments": _arguments,
    "other rank": _wide,
}
"""What a part may be. Sequences and transformations hold parts of their own."""

NEVER = ("WeightNorm", "RNN", "scanned")
"""Parts that no chip takes, whatever their options."""
RARE = (*NEVER, "Conv 1-D", "Conv 3-D", "other rank")
"""Parts that are drawn less often."""


class _Around(nnx.Module):
    def __init__(self, before: Callable, layer: Any, after: Callable | None) -> None:
        self.before, self.layer, self.after = before, layer, after

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layer(self.before(x))
        return y if self.after is None else self.after(y)


class _Beside(nnx.Module):
    def __init__(self, index: Callable, embed: Any) -> None:
        self.index, self.embed = index, embed

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.embed(self.index(x))


class _Always(nnx.Module):
    def __init__(self, drop: nnx.Dropout) -> None:
        self.drop = drop

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.drop(x, deterministic=False)


class _Step(nnx.Module):
    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.cell(jnp.zeros((*x.shape[:-1], 4)), x)[1]


class _Residual(nnx.Module):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.inner(x)


class _Each(nnx.Module):
    """Layers one after another, whatever holds them."""

    def __init__(self, layers: Any) -> None:
        self.layers = layers

    def __call__(self, x: jax.Array) -> jax.Array:
        held = self.layers
        keys = list(held) if isinstance(held, dict | nnx.Dict) else range(len(held))
        for key in keys:
            x = nnx.relu(held[key](x))
        return x


class _Reads(nnx.Module):
    def __init__(self, layer: nnx.Linear, how: str) -> None:
        self.layer, self.how = layer, how

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x if self.how == "neither" else x @ self.layer.kernel[...] / 64
        return y + self.layer(x) if self.how == "both" else y


class _Transformed(nnx.Module):
    def __init__(self, inner: Any, how: str) -> None:
        self.inner, self.how = inner, how

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.how == "closed":
            return jax.checkpoint(lambda x: self.inner(x))(x)
        if self.how == "jit of none":
            return jax.jit(jnp.tanh)(self.inner(x))
        return getattr(nnx, self.how)(lambda inner, x: inner(x))(self.inner, x)


class _Scanned(nnx.Module):
    def __init__(self, stack: Any) -> None:
        self.stack = stack

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.stack)


class _State(nnx.Module):
    held: Any

    def __init__(self, kind: str, width: int) -> None:
        self.kind = kind
        if kind == "index":
            self.held = nnx.Variable(jnp.arange(width)[::-1])
        elif kind == "flag":
            self.held = nnx.Variable(jnp.arange(width) % 2 == 0)
        elif kind == "matrix":
            self.held = nnx.Param(jnp.eye(width) * 2)
        elif kind == "bare":
            self.held = np.arange(width, dtype=np.float32)
        elif kind == "half":
            self.held = nnx.Param(jnp.ones(width, jnp.bfloat16))
        elif kind == "complex":
            self.held = nnx.Param(jnp.full(width, 1 + 1j))
        elif kind == "tree":
            self.held = nnx.Variable({"a": jnp.ones(width)})
        else:
            self.held = nnx.Variable(jnp.int32(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "tree":
            return x * self.held.get_value()["a"]
        if self.kind == "count":
            self.held.set_value(self.held.get_value() + 1)
            return x
        held = self.held if self.kind == "bare" else self.held[...]
        if self.kind in ("index", "matrix"):
            return x[..., held] if self.kind == "index" else x @ held
        return (
            (x * held).real if self.kind == "complex" else jnp.where(held, x, -x) if self.kind == "flag" else x * held
        )


class _Renamed(nnx.Conv):
    """A subclass that computes what its base does."""


class _Standardised(nnx.Conv):
    """A subclass whose kernel is standardised at every call."""

    def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
        kernel = self.kernel[...]
        kernel = (kernel - kernel.mean((0, 1, 2))) / (kernel.std((0, 1, 2)) + 1e-3)
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class _Arguments(nnx.Module):
    """A norm called in the ways that norms are called."""

    def __init__(self, norm: nnx.BatchNorm, way: int) -> None:
        self.norm, self.way = norm, way

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.way == 0:
            return self.norm(x, use_running_average=True)
        if self.way == 1:
            return self.norm(x=x)
        return self.norm(x, use_running_average=False) if self.way == 2 else self.norm(x, mask=x > 0)


def _dtypes(draw: np.random.Generator) -> dict[str, Any]:
    """Mostly none; a half, a whole number, parameters of another dtype."""
    odd = [{"dtype": jnp.float32}, {"dtype": jnp.bfloat16}, {"dtype": jnp.int32}, {"param_dtype": jnp.bfloat16}]
    return _one(draw, odd) if draw.random() < 0.2 else {}


def _one(draw: np.random.Generator, choices: list[Any]) -> Any:
    return choices[int(draw.integers(len(choices)))]


# ---------------------------------------------------------------------------------------------------------------------
# Their arrays, and what they are made of


def tags(module: nnx.Module) -> list[str]:
    """What the parts of a network are, transformations and sequences with the parts in them."""
    return [m.tag for _, m in nnx.iter_modules(module) if isinstance(m, Tagged)]


def fill(module: nnx.Module, seed: int) -> dict[str, Any]:
    """Give a module exactly representable weights and ordinary norms; its arrays by path, random state left out."""
    draw = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    turned = [(*p, "kernel") for p, m in nnx.iter_modules(module) if getattr(m, "einsum_str", "").startswith("nhwa,ba")]
    for route, held in nnx.to_flat_state(nnx.state(module)):
        if isinstance(held, nnx.RngState):
            continue
        value = held.get_value() if isinstance(held, nnx.Variable) else held
        if isinstance(held, nnx.Variable) and jnp.issubdtype(value.dtype, jnp.floating):
            value = jnp.asarray(drawn_array(draw, str(route[-1]), value.shape, route in turned), value.dtype)
            held.set_value(value)
        arrays["/".join(map(str, route))] = value
    return arrays


def drawn_array(draw: np.random.Generator, name: str, shape: tuple[int, ...], turned: bool = False) -> np.ndarray:
    """An array by its name; kernels hold 127 in every column, turned ones in every row too."""
    if name in ("scale", "var", "negative_slope"):
        return draw.integers(4, 9, shape) / 8.0
    if name in ("bias", "mean") or len(shape) < 2:
        return draw.integers(-16, 17, shape) / 64.0
    whole = draw.integers(-127, 128, shape)
    whole[0 if len(shape) < 4 else (0, 0, 0)] = 127
    if turned:
        whole[..., 0] = 127
    return whole * 2.0 ** -np.ceil(np.log2(64 * np.sqrt(np.prod(shape[:-1]))))

"""Single layers at the sizes that fill an accelerator, and the draws of noisy reads."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from benchmarks import layers
from benchmarks.timing import Work, interleaved
from experiments.gpu.parts import Asked

from xbm_jax.crossbar.primitives import draws

__all__ = ["layer", "noise", "timed"]


def timed(ours: Work, plain: Work, asked: Asked) -> dict[str, float]:
    """Ratio and milliseconds of both."""
    seconds, rounds = (0.05, 1) if asked.toy else (1.0, 7)
    found = interleaved(ours, plain, seconds=seconds, rounds=rounds)
    return {
        "ratio": round(found.ratio, 3),
        "ours_ms": round(1e3 * found.ours_seconds, 4),
        "plain_ms": round(1e3 * found.plain_seconds, 4),
    }


def layer(asked: Asked, name: str) -> dict[str, Any]:
    """Reads of one kind of layer, to XLA's own float32 product of the same shapes."""
    made = {rows: _made(name, rows, asked.toy) for rows in (64, 128)}
    return {f"{rows} rows": timed(*layers.reads(one), asked) for rows, one in made.items()}


def _made(name: str, rows: int, toy: bool) -> layers.Layer:
    """A layer by its kind; ``bits``: inputs streamed one bit at a time, weights in slices."""
    spec, batch = layers.spec(rows), 2 if toy else 128
    if name == "conv":
        return layers.conv_layer(spec, *((16, 4) if toy else (128, 28)), batch)
    if name == "depthwise":
        return layers.depthwise_layer(spec, *((8, 4) if toy else (144, 28)), batch)
    spec = layers.BITSERIAL.replace(rows=rows) if name == "bits" else spec
    many = (4, 2 * rows, 8) if toy else (1024, 1152, 512) if name == "bits" else (8192, 4096, 4096)
    return layers.dense_layer(spec, *many)


def noise(asked: Asked) -> dict[str, Any]:
    """Normal draws of reads, and JAX's own of float32 digits; a read whose cells fluctuate, to the plain product."""
    count, key = 2**10 if asked.toy else 2**26, jax.random.key(0)
    coarse = jax.jit(lambda key: jnp.sum(draws.coarse_normal(key, (count,))))
    full = jax.jit(lambda key: jnp.sum(jax.random.normal(key, (count,))))
    found = timed(lambda: coarse(key), lambda: full(key), asked)
    return {"draws": found | {"count": count}, "a noisy convolution": timed(*layers.noisy_read(), asked)}

"""Random small transformers of token ids and a mask: norms before or after, heads, gates, tied and free embeddings."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.random_modules import CLASSES

WORDS = 11


class Block(nnx.Module):
    """Attention and a feed-forward layer of one of several forms."""

    def __init__(self, draw: np.random.Generator, width: int, rngs: nnx.Rngs) -> None:
        self.before, self.gated = bool(draw.random() < 0.5), bool(draw.random() < 0.5)
        # Flax's fast variance, E[x^2] - E[x]^2, loses what a large mean leaves of float32; a chip's norm does not.
        norm = partial(nnx.LayerNorm, use_fast_variance=False)
        rms = draw.random() < 0.3
        self.norms = nnx.List([nnx.RMSNorm(width, rngs=rngs) if rms else norm(width, rngs=rngs)])
        self.norms.append(norm(width, use_bias=bool(draw.random() < 0.7), rngs=rngs))
        self.attend = nnx.MultiHeadAttention(2, width, decode=False, dropout_rate=0.1, rngs=rngs)
        self.up = nnx.Linear(width, 2 * width, use_bias=bool(draw.random() < 0.5), rngs=rngs)
        self.gate = nnx.Einsum("...d,df->...f", (width, 2 * width), rngs=rngs) if self.gated else None
        self.down = nnx.LinearGeneral(2 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        for norm, inner in zip(self.norms, (lambda x: self.attend(x, mask=mask), self.feed), strict=True):
            x = x + self.dropout(inner(norm(x))) if self.before else norm(x + self.dropout(inner(x)))
        return x

    def feed(self, x: jax.Array) -> jax.Array:
        y = nnx.gelu(self.up(x))
        return self.down(y if self.gate is None else y * self.gate(x))


class Transformer(nnx.Module):
    """Embeddings of words and places, blocks, a head of the first token or of the mean; evaluation mode."""

    def __init__(self, seed: int, rngs: nnx.Rngs) -> None:
        draw = np.random.default_rng(seed)
        width, length = int(draw.choice([8, 12])), transformer_inputs(seed)["ids"].shape[1]
        self.words = nnx.Embed(WORDS, width, rngs=rngs)
        self.places = nnx.Param(jnp.zeros((length, width)))
        self.blocks = nnx.List([Block(draw, width, rngs) for _ in range(int(draw.integers(1, 3)))])
        self.first = bool(draw.random() < 0.5)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)
        self.eval()

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        x = self.words(ids) + self.places[...]
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        weight = mask[..., None].astype(x.dtype)
        return self.head(x[:, 0] if self.first else (x * weight).sum(1) / weight.sum(1))


def transformer_inputs(seed: int) -> dict[str, np.ndarray]:
    """Three sentences of different lengths."""
    draw = np.random.default_rng(seed)
    length = int(draw.integers(3, 7))
    ids = draw.integers(0, WORDS, (3, length)).astype(np.int32)
    return {"ids": ids, "mask": np.arange(length) < np.array([[length], [2], [1]])}

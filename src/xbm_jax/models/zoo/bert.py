"""BERT (Devlin 2019) as sentence-transformers use it: tokens to one feature vector a sentence.

Queries, keys, values, attention's output and both layers of the perceptron are dense layers, so they can sit on
crossbars. Embeddings, products of two activations, GELU and layer norms stay digital.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.errors import ModelError

__all__ = ["Bert", "mean_over"]

_PADDED = -1e9
"""Added to the scores of padding: its softmax is zero, and a sentence of nothing else still has finite ones."""


class Block(nnx.Module):
    """Self-attention and a two-layer perceptron, each with a shortcut and a layer norm behind it."""

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.norm1 = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.fc1 = nnx.Linear(width, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = self.norm1(x + self.proj(self._attend(x, mask)))
        return self.norm2(x + self.fc2(nnx.gelu(self.fc1(x), approximate=False)))

    def _attend(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """``softmax(q k^T / sqrt(width / heads)) v`` per head, over real tokens: [batch, tokens, width] to the same."""
        q, k, v = (layer(x).reshape(*x.shape[:2], self.heads, -1) for layer in (self.query, self.key, self.value))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        scores = scores + jnp.where(mask, 0.0, _PADDED)[:, None, None]
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v).reshape(x.shape)


class Bert(nnx.Module):
    """MiniLM-L6 by its defaults: ids int [batch, tokens] and mask bool [batch, tokens] to [batch, num_classes].

        features = mean over real tokens of the last hidden states,   answer = head(features)

    Dropout, segments other than the first and the pooler of BERT's pretraining are left out: a sentence's feature
    needs none of them.

    Args:
        vocabulary: number of tokens. positions: the longest sentence, in tokens.
        width: channels of a token. depth: blocks. heads: attention heads. hidden: width of the perceptron.
        epsilon: of the layer norms.

    Raises:
        ModelError: more tokens than ``positions``.
    """

    def __init__(
        self,
        num_classes: int = 384,
        *,
        vocabulary: int = 30_522,
        positions: int = 512,
        width: int = 384,
        depth: int = 6,
        heads: int = 12,
        hidden: int = 1536,
        epsilon: float = 1e-12,
        rngs: nnx.Rngs,
    ) -> None:
        self.positions = positions
        self.words = nnx.Embed(vocabulary, width, rngs=rngs)
        self.places = nnx.Embed(positions, width, rngs=rngs)
        self.segments = nnx.Embed(2, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.names = tuple(f"block{i}" for i in range(depth))
        for name in self.names:
            setattr(self, name, Block(width, heads, hidden, epsilon, rngs=rngs))
        self.head = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return self.head(mean_over(self.hidden(ids, mask), mask))

    def hidden(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """The last hidden states, [batch, tokens, width]; those of padding mean nothing."""
        tokens = ids.shape[1]
        if tokens > self.positions:
            raise ModelError("ids.shape", ids.shape, f"at most {self.positions} tokens: there are no more positions")
        first = jnp.zeros_like(ids)
        x = self.norm(self.words(ids) + self.places(jnp.arange(tokens)) + self.segments(first))
        for name in self.names:
            x = getattr(self, name)(x, mask)
        return x


def mean_over(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over real tokens: [batch, tokens, width] to [batch, width]; zero where there is none."""
    counted = mask[..., None].astype(x.dtype)
    return jnp.sum(x * counted, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1.0)

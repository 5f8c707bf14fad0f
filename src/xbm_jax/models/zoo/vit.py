"""Vision transformer ViT-S/16 (Dosovitskiy 2021; Steiner 2022): patches, a class token, pre-norm blocks.

Projections are dense layers, so they can sit on crossbars; products of two activations (queries with keys, attention
with values) stay digital.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.errors import ModelError

__all__ = ["VisionTransformer"]


class Block(nnx.Module):
    """Self-attention and a two-layer perceptron, each behind a layer norm and around a shortcut.

    ``qkv`` gives queries, keys and values side by side, each [heads, width / heads].
    """

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.norm1 = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.fc1 = nnx.Linear(width, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.proj(self._attend(self.qkv(self.norm1(x))))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x)), approximate=False))

    def _attend(self, qkv: jax.Array) -> jax.Array:
        """[batch, tokens, 3 * width] to [batch, tokens, width]: ``softmax(q k^T / sqrt(width / heads)) v`` per head."""
        batch, tokens, _ = qkv.shape
        q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, self.heads, -1), 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v).reshape(batch, tokens, -1)


class VisionTransformer(nnx.Module):
    """ViT-S/16: [batch, image_size, image_size, 3] to [batch, num_classes], read from the class token.

    Args:
        image_size: pixels a side; decides the number of position embeddings, so it holds for the weights.
        patch: pixels a side of a patch.
        width: channels of a token. depth: blocks. heads: attention heads. The perceptron is four times as wide.
        epsilon: of the layer norms; 1e-6 in timm.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        image_size: int = 224,
        patch: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        epsilon: float = 1e-6,
        rngs: nnx.Rngs,
    ) -> None:
        self.image_size = image_size
        self.patch_embed = nnx.Conv(3, width, (patch, patch), strides=patch, padding="VALID", rngs=rngs)
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width)))
        self.pos_embed = nnx.Param(jnp.zeros((1, (image_size // patch) ** 2 + 1, width)))
        self.names = tuple(f"block{i}" for i in range(depth))
        for name in self.names:
            setattr(self, name, Block(width, heads, 4 * width, epsilon, rngs=rngs))
        self.norm = nnx.LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.head = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1:3] != (self.image_size, self.image_size):
            size = self.image_size
            raise ModelError("images.shape", x.shape, f"[n, {size}, {size}, 3], what the position embeddings are for")
        x = self.patch_embed(x)
        x = x.reshape(len(x), -1, x.shape[-1])
        token = jnp.broadcast_to(self.cls_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=1) + self.pos_embed[...]
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(self.norm(x)[:, 0])

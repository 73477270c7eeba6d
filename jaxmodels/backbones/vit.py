"""Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929): images (B, H, W, 3) -> features (B, D).

Names follow timm's `vit_base_patch16_224`; q, k and v are separate. Pre-norm blocks, exact GELU, no LayerScale, the
class token (with its own position entry) is the feature. Ports, in the order in which data passes:

    embed                                patch embedding (B, h, w, D), before class token and positions
    tokens                               input of block 0 (B, 1 + N, D)
    block{i}/norm1, block{i}/attn/{q_proj,k_proj,v_proj,core,proj}
    block{i}/attn_out                    attention branch before the residual addition; sees `inputs` and `residual`
    block{i}/norm2, block{i}/mlp/{fc1,act,fc2}
    block{i}/mlp_out                     MLP branch before the residual addition; sees `inputs` and `residual`
    block{i}/out                         block output; sees `inputs`, the block's input
    norm, pooled                         final LayerNorm, class-token feature (B, D)
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxmodels.backbones.backbone import Backbone, check_images
from jaxmodels.nn.transformer import SHARDINGS, Attention, DropPath, Mlp, trunc_normal
from jaxmodels.ports import Port


class Size(NamedTuple):
    """Width D, depth L, attention heads and patch side in pixels; the MLP is 4 D wide."""

    width: int
    depth: int
    heads: int
    patch: int


SIZES = {
    "mini": Size(96, 4, 3, 8),  # 32 x 32 images; its weights come with the repository
    "ti16": Size(192, 12, 3, 16),
    "s16": Size(384, 12, 6, 16),
    "b16": Size(768, 12, 12, 16),
    "l16": Size(1024, 24, 16, 16),
    "h14": Size(1280, 32, 16, 14),
}


class Block(nn.Module):
    """x += DropPath(Attn(LN1 x)); x += DropPath(MLP(LN2 x))."""

    heads: int
    drop_path: float = 0.0
    epsilon: float = 1e-6
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """One pre-norm transformer block."""
        start = x
        h = nn.LayerNorm(self.epsilon, dtype=self.dtype, name="norm1")(x)
        y = Attention(self.heads, self.dtype, name="attn")(h)
        y = Port(name="attn_out")(y, inputs=h, residual=x)
        x = x + DropPath(self.drop_path, name="drop1")(y)
        h = nn.LayerNorm(self.epsilon, dtype=self.dtype, name="norm2")(x)
        y = Mlp(4 * x.shape[-1], self.dtype, name="mlp")(h)
        y = Port(name="mlp_out")(y, inputs=h, residual=x)
        x = x + DropPath(self.drop_path, name="drop2")(y)
        return Port(name="out")(x, inputs=start)


class ViT(nn.Module):
    """The backbone without a head. `drop_path` is the last block's rate; the rates rise linearly from 0."""

    size: Size
    drop_path: float = 0.0
    pre_logits: bool = False
    remat: bool = False
    epsilon: float = 1e-6
    dtype: DTypeLike | None = None

    def setup(self):
        """What `tail` needs too; the rest is created where it is used."""
        self.norm = nn.LayerNorm(self.epsilon, dtype=self.dtype)
        self.pooled = Port()
        if self.pre_logits:  # of the ImageNet-21k heads; PEFT papers drop it
            self.representation = nn.Dense(self.size.width, dtype=self.dtype)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        """Normalised images -> class-token features; image sides must be multiples of the patch."""
        width, depth, heads, patch = self.size
        check_images(images, patch)
        conv = nn.Conv(width, (patch, patch), (patch, patch), padding="VALID", dtype=self.dtype, name="embed")
        x = conv(images).reshape(images.shape[0], -1, width)
        cls = self.param("cls_token", trunc_normal, (1, 1, width))
        positions = self.param("pos_embed", trunc_normal, (1, x.shape[1] + 1, width))
        x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, width)).astype(x.dtype), x], axis=1)
        x = Port(name="tokens")(x + positions.astype(x.dtype))
        block = nn.remat(Block) if self.remat else Block
        for i, rate in enumerate(np.linspace(0.0, self.drop_path, depth)):
            x = block(heads, float(rate), self.epsilon, self.dtype, name=f"block{i}")(x)
        return self.tail(x)

    def tail(self, x: Float[Array, "b n c"]) -> Float[Array, "b c"]:
        """Final norm and pooling: tokens (B, 1 + N, D) -> features (B, D)."""
        x = self.norm(x)[:, 0]
        if self.pre_logits:
            x = jnp.tanh(self.representation(x))
        return self.pooled(x)


def vit(
    size: str | Size = "b16",
    *,
    image_size: int | None = None,
    drop_path: float = 0.0,
    pre_logits: bool = False,
    remat: bool = False,
    epsilon: float = 1e-6,
    dtype: DTypeLike | None = None,
) -> Backbone:
    """A Vision Transformer.

    Args:
        size: a key of `SIZES` ('mini', 'ti16', 's16', 'b16', 'l16', 'h14') or a `Size`.
        image_size: side of the square input in pixels; 224 unless given, 32 for 'mini'.
        drop_path: stochastic depth of the last block.
        pre_logits: keep the tanh layer of ImageNet-21k heads.
        remat: recompute each block in the backward pass instead of storing its activations.
        epsilon: of every LayerNorm; 1e-6 in Google's and timm's checkpoints, 1e-12 in Hugging Face's.
        dtype: of the computation; None follows the parameters.

    Raises:
        ValueError: an unknown size.
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"size: found '{size}', expected one of {', '.join(SIZES)}")
    shape = SIZES[size] if isinstance(size, str) else size
    name = f"vit_{size}" if isinstance(size, str) else f"vit_{'x'.join(map(str, size))}"
    pixels = image_size or (32 if size == "mini" else 224)
    module = ViT(shape, drop_path, pre_logits, remat, epsilon, dtype)
    blocks = tuple(f"block{i}" for i in range(shape.depth))
    return Backbone(name, module, pixels, shape.width, blocks, SHARDINGS, pooled_tokens=1)

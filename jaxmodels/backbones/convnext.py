"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545): images (B, H, W, 3) -> features (B, D).

Names follow timm; the two pointwise layers of a block are `mlp/fc1` and `mlp/fc2`. Activations are maps (B, h, w, C).
Ports, in the order in which data passes:

    stem, stem_norm, tokens
    stage{i}/downsample_norm, stage{i}/downsample      before every stage but the first
    stage{i}/block{j}/{conv_dw,norm,mlp/fc1,mlp/act,mlp/fc2,mlp_out,out}
    head_norm, pooled                    mean over the map, then LayerNorm (B, D)
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmodels.backbones.backbone import Backbone, check_images
from jaxmodels.nn.transformer import DropPath, Mlp, trunc_normal
from jaxmodels.ports import Port


class Size(NamedTuple):
    """Blocks and width of each stage."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]


SIZES = {
    "t": Size((3, 3, 9, 3), (96, 192, 384, 768)),
    "s": Size((3, 3, 27, 3), (96, 192, 384, 768)),
    "b": Size((3, 3, 27, 3), (128, 256, 512, 1024)),
    "l": Size((3, 3, 27, 3), (192, 384, 768, 1536)),
}


class SampleNorm(nn.Module):
    """LayerNorm whose variance is divided by C - 1 instead of C."""

    epsilon: float
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Normalises the last axis; statistics in float32 or wider."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).sum(-1, keepdims=True) / (x.shape[-1] - 1)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        scale, bias = (jnp.broadcast_to(p, normal.shape) for p in (scale, bias))
        return (normal * scale + bias).astype(self.dtype or x.dtype)


class Block(nn.Module):
    """x + DropPath(gamma * fc2(GELU(fc1(LN(depthwise 7 x 7 (x))))))."""

    drop_path: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """One block on a map."""
        width = x.shape[-1]
        conv = nn.Conv(
            width,
            (7, 7),
            padding=3,
            feature_group_count=width,
            dtype=self.dtype,
            kernel_init=trunc_normal,
            name="conv_dw",
        )
        h = nn.LayerNorm(1e-6, dtype=self.dtype, name="norm")(conv(x))
        y = Mlp(4 * width, self.dtype, name="mlp")(h)
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (width,))
        y = y * jnp.broadcast_to(gamma.astype(y.dtype), y.shape)
        y = Port(name="mlp_out")(y, inputs=h, residual=x)
        return Port(name="out")(x + DropPath(self.drop_path, name="drop")(y), inputs=x)


class Stage(nn.Module):
    """LayerNorm and 2 x 2 convolution (but not in the first stage), then blocks."""

    width: int
    drop_paths: tuple[float, ...]
    first: bool
    sample_variance: bool = False
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """All blocks of the stage."""
        if not self.first:
            norm = SampleNorm if self.sample_variance else nn.LayerNorm
            x = norm(1e-6, dtype=self.dtype, name="downsample_norm")(x)
            x = _patches(self.width, 2, self.dtype, "downsample")(x)
        block = nn.remat(Block) if self.remat else Block
        for j, rate in enumerate(self.drop_paths):
            x = block(rate, self.dtype, name=f"block{j}")(x)
        return x


def _patches(width: int, side: int, dtype: jnp.dtype | None, name: str) -> nn.Conv:
    return nn.Conv(width, (side, side), (side, side), padding="VALID", dtype=dtype, kernel_init=trunc_normal, name=name)


# The pointwise products of a block as in a transformer's MLP; depthwise convolutions are small.
SHARDINGS = (
    (r".*/fc1/kernel", ("fsdp", "model")),
    (r".*/fc2/kernel", ("model", "fsdp")),
    (r".*/fc1/bias", ("model",)),
)


class ConvNeXt(nn.Module):
    """The backbone without a head. `drop_path` is the last block's rate; the rates rise linearly from 0."""

    size: Size
    drop_path: float = 0.0
    sample_variance: bool = False
    remat: bool = False
    dtype: jnp.dtype | None = None

    def setup(self):
        """What `tail` needs too; the rest is created where it is used."""
        self.head_norm = nn.LayerNorm(1e-6, dtype=self.dtype)
        self.pooled = Port()

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b c"]:
        """Normalised images -> mean-pooled, normalised features."""
        depths, widths = self.size
        unit = 4 * 2 ** (len(depths) - 1)
        check_images(images, unit)
        x = _patches(widths[0], 4, self.dtype, "stem")(images)
        x = Port(name="tokens")(nn.LayerNorm(1e-6, dtype=self.dtype, name="stem_norm")(x))
        rates = [float(rate) for rate in np.linspace(0.0, self.drop_path, sum(depths))]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            mine, rates = tuple(rates[:depth]), rates[depth:]
            stage = Stage(width, mine, i == 0, self.sample_variance, self.remat, self.dtype, name=f"stage{i}")
            x = stage(x)
        return self.tail(x)

    def tail(self, x: Float[Array, "b *map c"]) -> Float[Array, "b c"]:
        """Mean over the map and final norm: (B, h, w, D) -> (B, D)."""
        return self.pooled(self.head_norm(x.mean(tuple(range(1, x.ndim - 1)))))


def convnext(
    size: str | Size = "b",
    *,
    image_size: int = 224,
    drop_path: float = 0.0,
    sample_variance: bool = False,
    remat: bool = False,
    dtype: jnp.dtype | None = None,
) -> Backbone:
    """A ConvNeXt.

    Args:
        size: a key of `SIZES` ('t', 's', 'b', 'l') or a `Size`.
        image_size: side of the square input in pixels.
        drop_path: stochastic depth of the last block.
        sample_variance: divide the variance by C - 1 in the norms between stages, and only there, as timm 0.5.4 did.
        remat: recompute each block in the backward pass.
        dtype: of the computation; None follows the parameters.

    Raises:
        ValueError: an unknown size, or one with unequal numbers of depths and widths.
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"size: found '{size}', expected one of {', '.join(SIZES)}")
    shape = SIZES[size] if isinstance(size, str) else size
    if len(shape.depths) != len(shape.widths):
        raise ValueError(
            f"size: found {len(shape.depths)} depths and {len(shape.widths)} widths, expected one per stage"
        )
    numbers = ".".join(map(str, shape.depths)) + "x" + ".".join(map(str, shape.widths))
    name = f"convnext_{size}" if isinstance(size, str) else f"convnext_{numbers}"
    blocks = tuple(f"stage{i}/block{j}" for i, depth in enumerate(shape.depths) for j in range(depth))
    module = ConvNeXt(shape, drop_path, sample_variance, remat, dtype)
    return Backbone(name, module, image_size, shape.widths[-1], blocks, SHARDINGS)

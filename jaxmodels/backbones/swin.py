"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030): images (B, H, W, 3) -> features (B, D).

Names follow timm 0.5.4; q, k and v are separate. Attention inside windows of a map, every second block's windows
shifted by half a window; between stages 2 x 2 neighbours merge. Tokens at ports are rows of the map, (B, h w, C), those
inside attention windows (B windows, w w, C). Ports, in the order in which data passes:

    embed, embed_norm, tokens
    layer{i}/block{j}/norm1, layer{i}/block{j}/attn/{q_proj,k_proj,v_proj,core,proj}, layer{i}/block{j}/attn_out
    layer{i}/block{j}/norm2, layer{i}/block{j}/mlp/{fc1,act,fc2}, layer{i}/block{j}/{mlp_out,out}
    layer{i}/downsample/{norm,reduction}  at the end of every stage but the last
    norm, pooled                         final LayerNorm, mean over tokens (B, D)
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float

from jaxmodels.backbones.backbone import Backbone, check_images
from jaxmodels.nn.transformer import SHARDINGS, Attend, DropPath, Mlp, trunc_normal
from jaxmodels.ports import Port


class Size(NamedTuple):
    """Width of the first stage (doubled by each later one), blocks and heads per stage, window and patch sides."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    patch: int = 4


SIZES = {
    "t": Size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "s": Size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "b": Size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "l": Size(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def relative_index(window: int) -> np.ndarray:
    """Row of the bias table for each pair of positions in a window: (w w, w w) integers below (2 w - 1)^2."""
    rows, columns = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(grid: tuple[int, int], window: int, shift: int) -> np.ndarray:
    """Added to the logits of rolled windows: (windows, w w, w w), -100 between parts that are no neighbours."""

    def parts(side):  # the roll brings the first `shift` rows next to the last ones
        place = np.arange(side)
        return (place >= side - window).astype(int) + (place >= side - shift)

    region = parts(grid[0])[:, None] * 3 + parts(grid[1])[None, :]
    region = rearrange(region, "(a u) (b v) -> (a b) (u v)", u=window, v=window)
    return np.where(region[:, :, None] == region[:, None, :], 0.0, -100.0).astype(np.float32)


class WindowAttention(nn.Module):
    """Attention in each window with a learned bias per relative position; ports as in `nn.transformer.Attention`."""

    heads: int
    window: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], mask: np.ndarray | None = None) -> Float[Array, "b n c"]:
        """Attention over the windows' positions; `mask` (windows of an image, N, N) is added to the logits."""
        width, positions = x.shape[-1], self.window**2

        def project(name: str) -> Float[Array, "b n h d"]:
            y = nn.Dense(width, dtype=self.dtype, kernel_init=trunc_normal, name=name)(x)
            return y.reshape(*y.shape[:-1], self.heads, width // self.heads)

        table = self.param("relative_bias", trunc_normal, ((2 * self.window - 1) ** 2, self.heads))
        bias = table[relative_index(self.window).reshape(-1)].reshape(positions, positions, self.heads)
        bias = bias.transpose(2, 0, 1)[None].astype(jnp.float32)
        if mask is not None:
            images = x.shape[0] // mask.shape[0]
            bias = jnp.tile(bias + jnp.asarray(mask)[:, None], (images, 1, 1, 1))
        out, _ = Attend(name="core")(project("q_proj"), project("k_proj"), project("v_proj"), bias)
        return nn.Dense(width, dtype=self.dtype, kernel_init=trunc_normal, name="proj")(out.reshape(x.shape))


class Block(nn.Module):
    """x += DropPath(windowed Attn(LN1 x)); x += DropPath(MLP(LN2 x)), on a map of `grid` rows and columns."""

    grid: tuple[int, int]
    heads: int
    window: int
    shift: int
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """One block; tokens are the map's rows."""
        start = x
        h = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm1")(x)
        y = Port(name="attn_out")(self._attend(h), inputs=h, residual=x)
        x = x + DropPath(self.drop_path, name="drop1")(y)
        h = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm2")(x)
        y = Mlp(4 * x.shape[-1], self.dtype, name="mlp")(h)
        y = Port(name="mlp_out")(y, inputs=h, residual=x)
        x = x + DropPath(self.drop_path, name="drop2")(y)
        return Port(name="out")(x, inputs=start)

    def _attend(self, h):
        (rows, columns), w = self.grid, self.window
        h = h.reshape(h.shape[0], rows, columns, h.shape[-1])
        h = jnp.roll(h, (-self.shift, -self.shift), (1, 2))
        h = rearrange(h, "b (i u) (j v) c -> (b i j) (u v) c", u=w, v=w)
        mask = shift_mask(self.grid, w, self.shift) if self.shift else None
        h = WindowAttention(self.heads, w, self.dtype, name="attn")(h, mask)
        h = rearrange(h, "(b i j) (u v) c -> b (i u) (j v) c", i=rows // w, j=columns // w, u=w)
        h = jnp.roll(h, (self.shift, self.shift), (1, 2))
        return h.reshape(h.shape[0], rows * columns, h.shape[-1])


class Merge(nn.Module):
    """2 x 2 neighbours concatenated as (row, column) = (0,0), (1,0), (0,1), (1,1), LayerNorm, linear C -> 2 C."""

    grid: tuple[int, int]
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b m d"]:
        """A quarter of the tokens at twice the width."""
        width = x.shape[-1]
        x = x.reshape(x.shape[0], *self.grid, width)
        x = rearrange(x, "b (i u) (j v) c -> b (i j) (v u c)", u=2, v=2)
        x = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm")(x)
        return nn.Dense(2 * width, use_bias=False, dtype=self.dtype, kernel_init=trunc_normal, name="reduction")(x)


class Stage(nn.Module):
    """Blocks on one map, then merging unless it is the last stage."""

    grid: tuple[int, int]
    heads: int
    window: int
    drop_paths: tuple[float, ...]
    last: bool
    remat: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b m d"]:
        """All blocks of the stage; odd ones are shifted unless one window covers the map."""
        side = min(self.grid)
        window, shift = (self.window, self.window // 2) if side > self.window else (side, 0)
        if self.grid[0] % window or self.grid[1] % window:
            raise ValueError(f"images: a map of {self.grid} patches does not split into windows of {window}")
        block = nn.remat(Block) if self.remat else Block
        for j, rate in enumerate(self.drop_paths):
            offset = shift if j % 2 else 0
            x = block(self.grid, self.heads, window, offset, rate, self.dtype, name=f"block{j}")(x)
        return x if self.last else Merge(self.grid, self.dtype, name="downsample")(x)


class Swin(nn.Module):
    """The backbone without a head. `drop_path` is the last block's rate; the rates rise linearly from 0."""

    size: Size
    drop_path: float = 0.0
    remat: bool = False
    dtype: jnp.dtype | None = None

    def setup(self):
        """What `tail` needs too; the rest is created where it is used."""
        self.norm = nn.LayerNorm(1e-5, dtype=self.dtype)
        self.pooled = Port()

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b c"]:
        """Normalised images -> mean-pooled features."""
        width, depths, heads, window, patch = self.size
        unit = patch * 2 ** (len(depths) - 1)
        check_images(images, unit)
        x = nn.Conv(width, (patch, patch), (patch, patch), padding="VALID", dtype=self.dtype, name="embed")(images)
        grid = (x.shape[1], x.shape[2])
        x = nn.LayerNorm(1e-5, dtype=self.dtype, name="embed_norm")(x.reshape(x.shape[0], -1, width))
        x = Port(name="tokens")(x)
        rates = [float(rate) for rate in np.linspace(0.0, self.drop_path, sum(depths))]
        for i, depth in enumerate(depths):
            mine, rates = tuple(rates[:depth]), rates[depth:]
            last = i == len(depths) - 1
            stage = Stage(grid, heads[i], window, mine, last, self.remat, self.dtype, name=f"layer{i}")
            x = stage(x)
            grid = (grid[0] // 2, grid[1] // 2)
        return self.tail(x)

    def tail(self, x: Float[Array, "b n c"]) -> Float[Array, "b c"]:
        """Final norm and mean over tokens: (B, N, D) -> (B, D)."""
        return self.pooled(self.norm(x).mean(1))


def swin(
    size: str | Size = "b",
    *,
    image_size: int = 224,
    drop_path: float = 0.0,
    remat: bool = False,
    dtype: jnp.dtype | None = None,
) -> Backbone:
    """A Swin Transformer with patches of 4 and windows of 7.

    Args:
        size: a key of `SIZES` ('t', 's', 'b', 'l') or a `Size`.
        image_size: side of the square input in pixels.
        drop_path: stochastic depth of the last block.
        remat: recompute each block in the backward pass.
        dtype: of the computation; None follows the parameters.

    Raises:
        ValueError: an unknown size, or one with unequal numbers of depths and heads.
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"size: found '{size}', expected one of {', '.join(SIZES)}")
    shape = SIZES[size] if isinstance(size, str) else size
    if len(shape.depths) != len(shape.heads):
        raise ValueError(f"size: found {len(shape.depths)} depths and {len(shape.heads)} heads, expected one per stage")
    name = f"swin_{size}" if isinstance(size, str) else f"swin_{shape.width}x{'.'.join(map(str, shape.depths))}"
    blocks = tuple(f"layer{i}/block{j}" for i, depth in enumerate(shape.depths) for j in range(depth))
    width = shape.width * 2 ** (len(shape.depths) - 1)
    return Backbone(name, Swin(shape, drop_path, remat, dtype), image_size, width, blocks, SHARDINGS)

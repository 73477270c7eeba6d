"""Weight maps of the Swin Transformer's published checkpoints (the original's names, which timm 0.5.4 shares)."""

from collections.abc import Sequence

from jaxmodels.weights.names import Row

BUFFERS = (r".*relative_position_index", r".*attn_mask", r".*relative_coords_table")  # constants, recomputed here


def timm(depths: Sequence[int], *, late: bool = False) -> tuple[Row, ...]:
    """The map of a Swin with `depths` blocks per stage, without a head.

    Args:
        depths: blocks per stage.
        late: a merging of patches counts to the stage after it, as in timm since 0.8, instead of the one before.
    """
    rows = [
        Row("patch_embed.proj.weight", ("embed/kernel",), "o i h w -> h w i o"),
        Row("patch_embed.proj.bias", ("embed/bias",)),
        *_norm("patch_embed.norm", "embed_norm"),
    ]
    for i, depth in enumerate(depths):
        for j in range(depth):
            rows += _block(f"layers.{i}.blocks.{j}", f"layer{i}/block{j}")
        if i < len(depths) - 1:
            ours = f"layer{i}/downsample"
            theirs = f"layers.{i + late}.downsample"
            rows += _norm(f"{theirs}.norm", f"{ours}/norm")
            rows.append(Row(f"{theirs}.reduction.weight", (f"{ours}/reduction/kernel",), "o i -> i o"))
    return (*rows, *_norm("norm", "norm"))


def _block(theirs: str, ours: str) -> list[Row]:
    qkv = tuple(f"{ours}/attn/{name}_proj" for name in "qkv")
    return [
        *_norm(f"{theirs}.norm1", f"{ours}/norm1"),
        Row(f"{theirs}.attn.relative_position_bias_table", (f"{ours}/attn/relative_bias",)),
        Row(f"{theirs}.attn.qkv.weight", tuple(f"{p}/kernel" for p in qkv), "(n o) i -> n i o"),
        Row(f"{theirs}.attn.qkv.bias", tuple(f"{p}/bias" for p in qkv), "(n o) -> n o"),
        *_linear(f"{theirs}.attn.proj", f"{ours}/attn/proj"),
        *_norm(f"{theirs}.norm2", f"{ours}/norm2"),
        *_linear(f"{theirs}.mlp.fc1", f"{ours}/mlp/fc1"),
        *_linear(f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2"),
    ]


def _linear(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/kernel",), "o i -> i o"), Row(f"{theirs}.bias", (f"{ours}/bias",))


def _norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))

"""Weight maps of the Vision Transformer's published checkpoints."""

from jaxmodels.weights.names import Row

_QKV = tuple(f"block{{}}/attn/{name}_proj" for name in "qkv")


def _linear(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/kernel",), "o i -> i o"), Row(f"{theirs}.bias", (f"{ours}/bias",))


def _norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))


TIMM = (
    Row("cls_token", ("cls_token",)),
    Row("pos_embed", ("pos_embed",)),
    Row("patch_embed.proj.weight", ("embed/kernel",), "o i h w -> h w i o"),
    Row("patch_embed.proj.bias", ("embed/bias",)),
    *_norm("blocks.{}.norm1", "block{}/norm1"),
    Row("blocks.{}.attn.qkv.weight", tuple(f"{p}/kernel" for p in _QKV), "(n o) i -> n i o"),
    Row("blocks.{}.attn.qkv.bias", tuple(f"{p}/bias" for p in _QKV), "(n o) -> n o"),
    *_linear("blocks.{}.attn.proj", "block{}/attn/proj"),
    *_norm("blocks.{}.norm2", "block{}/norm2"),
    *_linear("blocks.{}.mlp.fc1", "block{}/mlp/fc1"),
    *_linear("blocks.{}.mlp.fc2", "block{}/mlp/fc2"),
    *_norm("norm", "norm"),
)

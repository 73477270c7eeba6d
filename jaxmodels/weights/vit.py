"""Published checkpoints of the Vision Transformer: their layouts as tables.

Each layout is known by one parameter that no other has, looked for under the prefixes it is published with. Google's
.npz comes in two spellings (the original code and big_vision), big_vision's also with all blocks stacked; PyTorch files
carry timm's names (MAE and MoCo v3 too) or Hugging Face's, of which files have the old ones and recent Transformers
releases the new ones in memory.
"""

from typing import NamedTuple

from jaxmodels.weights.names import Row


class Layout(NamedTuple):
    """How one family of files names a ViT.

    Attributes:
        name: for messages and for `save_vit`.
        signature: a parameter that only this layout has; '{}' is the block.
        prefixes: what may stand before every name of the backbone.
        rows: backbone.
        pre_logits: the tanh layer after the final norm.
        head: the published classifier, read into 'kernel' and 'bias'.
        positions: name of the position embedding.
        drop: patterns of what such files hold beside the model.
        class_has_position: whether the class token's position is an entry of its own, not already added to the token.
    """

    name: str
    signature: str
    prefixes: tuple[str, ...]
    rows: tuple[Row, ...]
    pre_logits: tuple[Row, ...]
    head: tuple[Row, ...]
    positions: str
    drop: tuple[str, ...] = ()
    class_has_position: bool = True


def _linear(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}kernel",), "o i -> i o"), Row(f"{theirs}.bias", (f"{ours}bias",))


def _norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))


def _plain(theirs: str, ours: str, *leaves: str) -> tuple[Row, ...]:
    return tuple(Row(f"{theirs}/{leaf}", (f"{ours}{leaf}",)) for leaf in leaves)


_QKV = tuple(f"block{{}}/attn/{name}_proj" for name in "qkv")
_PATCH = "o i h w -> h w i o"

TIMM = (
    Row("cls_token", ("cls_token",)),
    Row("pos_embed", ("pos_embed",)),
    Row("patch_embed.proj.weight", ("embed/kernel",), _PATCH),
    Row("patch_embed.proj.bias", ("embed/bias",)),
    *_norm("blocks.{}.norm1", "block{}/norm1"),
    Row("blocks.{}.attn.qkv.weight", tuple(f"{p}/kernel" for p in _QKV), "(n o) i -> n i o"),
    Row("blocks.{}.attn.qkv.bias", tuple(f"{p}/bias" for p in _QKV), "(n o) -> n o"),
    *_linear("blocks.{}.attn.proj", "block{}/attn/proj/"),
    *_norm("blocks.{}.norm2", "block{}/norm2"),
    *_linear("blocks.{}.mlp.fc1", "block{}/mlp/fc1/"),
    *_linear("blocks.{}.mlp.fc2", "block{}/mlp/fc2/"),
    *_norm("norm", "norm"),
)

_TIMM = Layout(
    name="timm",
    signature="blocks.{}.attn.qkv.weight",
    prefixes=("", "module."),
    rows=TIMM,
    pre_logits=_linear("pre_logits.fc", "representation/"),
    head=_linear("head", ""),
    positions="pos_embed",
    drop=(r"head\..*", r"decoder_.*", "mask_token"),  # MoCo v3's linear probe; MAE's decoder
)


def _hugging_face(name: str, block: str, qkv: tuple[str, str, str], out: str, fc1: str, fc2: str) -> Layout:
    paths = zip(qkv, _QKV, strict=True)
    return Layout(
        name=name,
        signature=f"{block}.{qkv[0]}.weight",
        prefixes=("", "vit."),
        rows=(
            Row("embeddings.cls_token", ("cls_token",)),
            Row("embeddings.position_embeddings", ("pos_embed",)),
            Row("embeddings.patch_embeddings.projection.weight", ("embed/kernel",), _PATCH),
            Row("embeddings.patch_embeddings.projection.bias", ("embed/bias",)),
            *_norm(f"{block}.layernorm_before", "block{}/norm1"),
            *(row for theirs, ours in paths for row in _linear(f"{block}.{theirs}", f"{ours}/")),
            *_linear(f"{block}.{out}", "block{}/attn/proj/"),
            *_norm(f"{block}.layernorm_after", "block{}/norm2"),
            *_linear(f"{block}.{fc1}", "block{}/mlp/fc1/"),
            *_linear(f"{block}.{fc2}", "block{}/mlp/fc2/"),
            *_norm("layernorm", "norm"),
        ),
        pre_logits=_linear("pooler.dense", "representation/"),
        head=_linear("classifier", ""),
        positions="embeddings.position_embeddings",
        drop=(r"classifier\..*", r"embeddings\.mask_token", r"decoder\..*"),  # masked image modelling
    )


_ATTENTION = "attention.attention"
_HF = _hugging_face(
    "hf",
    "encoder.layer.{}",
    (f"{_ATTENTION}.query", f"{_ATTENTION}.key", f"{_ATTENTION}.value"),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_HF_NEW = _hugging_face(
    "hf_new",
    "layers.{}",
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.o_proj",
    "mlp.fc1",
    "mlp.fc2",
)


def _google(name: str, *, attention: int, norm2: int, mlp: int, stacked: bool = False) -> Layout:
    """The numbers are Flax's automatic ones, which counted all submodules in the original code, each kind since."""
    block = "Transformer/encoderblock_{}"
    attn = f"{block}/MultiHeadDotProductAttention_{attention}"
    qkv = [
        row
        for x, path in zip(("query", "key", "value"), _QKV, strict=True)
        for row in (
            Row(f"{attn}/{x}/kernel", (f"{path}/kernel",), "i heads d -> i (heads d)"),
            Row(f"{attn}/{x}/bias", (f"{path}/bias",), "heads d -> (heads d)"),
        )
    ]
    rows = (
        Row("cls", ("cls_token",)),
        *_plain("embedding", "embed/", "kernel", "bias"),
        *_plain(f"{block}/LayerNorm_0", "block{}/norm1/", "scale", "bias"),
        *qkv,
        Row(f"{attn}/out/kernel", ("block{}/attn/proj/kernel",), "heads d o -> (heads d) o"),
        Row(f"{attn}/out/bias", ("block{}/attn/proj/bias",)),
        *_plain(f"{block}/LayerNorm_{norm2}", "block{}/norm2/", "scale", "bias"),
        *_plain(f"{block}/MlpBlock_{mlp}/Dense_0", "block{}/mlp/fc1/", "kernel", "bias"),
        *_plain(f"{block}/MlpBlock_{mlp}/Dense_1", "block{}/mlp/fc2/", "kernel", "bias"),
        *_plain("Transformer/encoder_norm", "norm/", "scale", "bias"),
    )
    original = norm2 == 2
    positions = "Transformer/posembed_input/pos_embedding" if original else "pos_embedding"
    rows = (*rows, Row(positions, ("pos_embed",)))
    return Layout(
        name=name,
        signature=_stack(f"{attn}/query/kernel") if stacked else f"{attn}/query/kernel",
        prefixes=("", "opt/target/", "params/", "params/img/"),
        rows=tuple(map(_stack_row, rows)) if stacked else rows,
        pre_logits=_plain("pre_logits", "representation/", "kernel", "bias"),
        head=_plain("head", "", "kernel", "bias"),
        positions=positions,
        drop=("head/.*", "opt/.*", "params/.*"),  # optimizer state; the other tower of an image-text model
        class_has_position=original,
    )


def _stack(name: str) -> str:
    return name.replace("encoderblock_{}", "encoderblock")


def _stack_row(row: Row) -> Row:
    if "{}" not in row.theirs:
        return row
    inward, outward = row.layout.split(" -> ") if row.layout else ("...", "...")
    return Row(_stack(row.theirs), row.ours, f"n {inward} -> n {outward}")


_GOOGLE = _google("google", attention=1, norm2=2, mlp=3)
_BIG_VISION = _google("big_vision", attention=0, norm2=1, mlp=0)
_STACKED = _google("big_vision_stacked", attention=0, norm2=1, mlp=0, stacked=True)

LAYOUTS = (_TIMM, _HF, _HF_NEW, _GOOGLE, _BIG_VISION, _STACKED)
WRITTEN = {"timm": _TIMM, "hf": _HF, "google": _GOOGLE}

"""Weight maps of ConvNeXt's published checkpoints: timm's, and the original ones."""

from collections.abc import Sequence

from jaxmodels.weights.names import Row


def timm(depths: Sequence[int], *, named: bool = False) -> tuple[Row, ...]:
    """The names of timm, for `depths` blocks per stage, without the classifier.

    Args:
        depths: blocks per stage.
        named: parts of stem and downsampling are called 'proj' and 'norm' instead of numbered.
    """
    stem, stem_norm = ("stem.proj", "stem.norm") if named else ("stem.0", "stem.1")
    down_norm, down = ("norm", "proj") if named else ("0", "1")
    rows = [*_conv(stem, "stem"), *_norm(stem_norm, "stem_norm")]
    for i, depth in enumerate(depths):
        if i:
            rows += _norm(f"stages.{i}.downsample.{down_norm}", f"stage{i}/downsample_norm")
            rows += _conv(f"stages.{i}.downsample.{down}", f"stage{i}/downsample")
        for j in range(depth):
            parts = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2")
            rows += _block(f"stages.{i}.blocks.{j}", f"stage{i}/block{j}", parts)
    return (*rows, *_norm("head.norm", "head_norm"))


def original(depths: Sequence[int]) -> tuple[Row, ...]:
    """The names of the authors' files, such as `convnext_base_22k_224.pth`, without the classifier `head`."""
    rows: list[Row] = []
    for i, depth in enumerate(depths):
        # The stem is the first "downsampling"; there the norm comes last.
        conv, norm = ("0", "1") if i == 0 else ("1", "0")
        ours, ours_norm = ("stem", "stem_norm") if i == 0 else (f"stage{i}/downsample", f"stage{i}/downsample_norm")
        rows += [*_conv(f"downsample_layers.{i}.{conv}", ours), *_norm(f"downsample_layers.{i}.{norm}", ours_norm)]
        for j in range(depth):
            rows += _block(f"stages.{i}.{j}", f"stage{i}/block{j}", ("dwconv", "norm", "pwconv1", "pwconv2"))
    return (*rows, *_norm("norm", "head_norm"))


def _block(theirs: str, ours: str, parts: tuple[str, str, str, str]) -> list[Row]:
    conv, norm, fc1, fc2 = (f"{theirs}.{part}" for part in parts)
    return [
        Row(f"{theirs}.gamma", (f"{ours}/gamma",)),
        *_conv(conv, f"{ours}/conv_dw"),
        *_norm(norm, f"{ours}/norm"),
        *_linear(fc1, f"{ours}/mlp/fc1"),
        *_linear(fc2, f"{ours}/mlp/fc2"),
    ]


def _conv(theirs: str, ours: str) -> tuple[Row, Row]:
    kernel = Row(f"{theirs}.weight", (f"{ours}/kernel",), "o i h w -> h w i o")
    return kernel, Row(f"{theirs}.bias", (f"{ours}/bias",))


def _linear(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/kernel",), "o i -> i o"), Row(f"{theirs}.bias", (f"{ours}/bias",))


def _norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))

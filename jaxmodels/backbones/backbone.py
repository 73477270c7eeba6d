"""Backbone: what the suite needs to know of any image backbone, whatever its architecture."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmodels import ports
from jaxmodels.ports import Shapes, Writers
from jaxmodels.rules import Shardings


class Backbone(NamedTuple):
    """A Flax module from images to pooled features, with the few facts that tuners and heads rest on.

    Attributes:
        name: size and kind, such as 'vit_b16'; stands in the header of saved tuners.
        module: images (B, H, W, 3) -> features (B, D); its method `tail` maps the last block's output to features.
        image_size: side of the square input in pixels.
        width: D, the width of the features.
        blocks: paths of the residual blocks, in order; 'PATH/out' is a block's output port, 'tokens' the first input.
        shardings: (path pattern, mesh axis per dimension) over the parameters; the others are replicated.
        pooled_tokens: how many leading tokens of the last block `tail` uses; None for all.
    """

    name: str
    module: nn.Module
    image_size: int
    width: int
    blocks: tuple[str, ...]
    shardings: Shardings = ()
    pooled_tokens: int | None = None

    def init(self, key: jax.Array) -> Any:
        """Fresh random parameters (timm's initialisation)."""
        images = jnp.zeros((1, self.image_size, self.image_size, 3))
        return self.module.init(key, images)["params"]

    def apply(self, params: Any, images: ArrayLike, *, writers: Writers | None = None, key: jax.Array | None = None):
        """Features (B, D) of images (B, H, W, 3); `key` switches stochastic depth on."""
        rngs = {} if key is None else {"drop_path": key}
        with ports.write(writers or {}):
            return self.module.apply({"params": params}, jnp.asarray(images), rngs=rngs)

    def read(
        self,
        params: Any,
        images: ArrayLike,
        paths: tuple[str, ...],
        *,
        writers: Writers | None = None,
        key: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Activations at port paths (after the writers there): path -> array."""
        ports.check_known(paths, self.shapes().ports, f"{self.name}: cannot read")
        wanted = set(paths)
        rngs = {} if key is None else {"drop_path": key}

        def keep(module: nn.Module, method: str) -> bool:
            return method == "__call__" and "/".join(module.path) in wanted

        with ports.write(writers or {}):
            _, sown = self.module.apply(
                {"params": params}, jnp.asarray(images), rngs=rngs, capture_intermediates=keep, mutable="intermediates"
            )
        return {path: ports.captured(sown["intermediates"], path) for path in paths}

    def tail(self, params: Any, x: jax.Array) -> jax.Array:
        """Final norm and pooling of the last block's output: (B, N, D) -> (B, D)."""
        features = self.module.apply({"params": params}, x, method="tail")
        assert isinstance(features, jax.Array)
        return features

    def shapes(self) -> Shapes:
        """Shapes at every port and of every parameter, without computing anything."""
        return _shapes(self)


@functools.lru_cache(maxsize=64)  # every part of a chained tuner asks; one abstract evaluation of ViT-H takes a second
def _shapes(backbone: Backbone) -> Shapes:
    images = jax.ShapeDtypeStruct((1, backbone.image_size, backbone.image_size, 3), jnp.float32)
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    return ports.shapes(lambda p, x: backbone.module.apply({"params": p}, x), params, images)


def check_images(images: jax.Array, multiple: int) -> None:
    """Raises ValueError unless images are (B, H, W, 3) with sides that are multiples of a patch, or of the last map."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] % multiple or images.shape[2] % multiple:
        hint = "; move channels last" if images.ndim == 4 and images.shape[1] == 3 else ""
        raise ValueError(
            f"images: expected (B, H, W, 3) with H and W multiples of {multiple}, found {tuple(images.shape)}{hint}"
        )

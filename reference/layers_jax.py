"""The layer namespace in JAX: traced under ``jax.jit`` for the fast reference and its gradients."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray


class JaxLayers:
    """Layers over a mapping of parameters, ``{"hidden1/kernel": (in, out), ...}``."""

    def __init__(self, parameters: Mapping[str, jax.Array]) -> None:
        self.parameters = parameters

    def dense(self, x: jax.Array, name: str, units: int) -> jax.Array:
        """``x @ kernel + bias``."""
        return x @ self.parameters[f"{name}/kernel"] + self.parameters[f"{name}/bias"]

    def conv2d(
        self, x: jax.Array, name: str, filters: int, window: int, padding: int = 0
    ) -> jax.Array:
        """``lax.conv_general_dilated`` computes cross-correlation."""
        out = lax.conv_general_dilated(
            x,
            self.parameters[f"{name}/kernel"],
            window_strides=(1, 1),
            padding=((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return out + self.parameters[f"{name}/bias"]

    def max_pool2d(self, x: jax.Array, window: int) -> jax.Array:
        """Maximum over non-overlapping windows."""
        shape = (1, window, window, 1)
        return jnp.asarray(lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "VALID"))

    def relu(self, x: jax.Array) -> jax.Array:
        """max(x, 0); the gradient at 0 is 0, as in all frameworks."""
        return jax.nn.relu(x)

    def flatten(self, x: jax.Array) -> jax.Array:
        """Everything but the batch in one dimension."""
        return x.reshape(x.shape[0], -1)

    def softmax_cross_entropy(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean of the negative log-probability of the label."""
        log_probabilities = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def timed_product(square: NDArray[np.float32]) -> None:
    """One matrix product by XLA, finished when this returns; the machine is measured by it."""
    _product(square).block_until_ready()


_product = jax.jit(lambda square: square @ square)

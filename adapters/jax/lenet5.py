"""LeNet-5 over a pytree of parameters, with the convolution of ``jax.lax``.

Follows https://docs.jax.dev/en/latest/101/convolutions.html ("Convolutions": images NHWC,
kernels HWIO, said to ``conv_general_dilated`` by its dimension numbers).
"""

import jax
import jax.numpy as jnp
from jax import lax


def build(sizes):
    """Sizes of the preset -> ``predict(parameters, image)`` -> logits (batch, classes)."""
    hidden = [f"hidden{number}" for number in range(1, len(sizes["hidden"]) + 1)]

    def predict(parameters, image):
        x = jax.nn.relu(convolve(parameters["conv1"], image, padding=2))
        x = max_pool(x)
        x = jax.nn.relu(convolve(parameters["conv2"], x, padding=0))
        x = max_pool(x)
        x = x.reshape(x.shape[0], -1)  # (batch, height * width * channel)
        for name in hidden:
            x = jax.nn.relu(dense(parameters[name], x))
        return dense(parameters["logits"], x)

    return predict


def convolve(layer, images, padding):
    """(batch, height, width, in) -> (batch, height', width', out), stride 1."""
    padding = ((padding, padding), (padding, padding))
    layout = ("NHWC", "HWIO", "NHWC")
    out = lax.conv_general_dilated(images, layer["kernel"], (1, 1), padding, None, None, layout)
    return out + layer["bias"]


def max_pool(images):
    """Maximum over 2x2 windows with stride 2."""
    window = (1, 2, 2, 1)
    return lax.reduce_window(images, -jnp.inf, lax.max, window, window, "VALID")


def dense(layer, inputs):
    """(batch, in) -> (batch, out)."""
    return inputs @ layer["kernel"] + layer["bias"]

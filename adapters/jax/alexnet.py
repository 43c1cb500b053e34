"""AlexNet over a pytree of parameters, with the convolution of ``jax.lax``.

Follows https://docs.jax.dev/en/latest/101/convolutions.html ("Convolutions", 2026-11).
"""

import jax

from levelfield.adapters.jax.layers import adaptive_mean_pool, convolve, dense, max_pool


def build(sizes):
    """Sizes of the preset -> ``predict(parameters, image)`` -> logits (batch, classes)."""

    def predict(parameters, image):
        x = jax.nn.relu(convolve(parameters["conv1"], image, stride=4, padding=2))
        x = max_pool(x, window=3, stride=2)
        x = jax.nn.relu(convolve(parameters["conv2"], x, padding=2))
        x = max_pool(x, window=3, stride=2)
        for name in ("conv3", "conv4", "conv5"):
            x = jax.nn.relu(convolve(parameters[name], x, padding=1))
        x = adaptive_mean_pool(max_pool(x, window=3, stride=2), sizes["pooled"])
        x = x.reshape(x.shape[0], -1)  # (batch, height * width * channel)
        for name in ("hidden1", "hidden2"):
            x = jax.nn.relu(dense(parameters[name], x))
        return dense(parameters["logits"], x)

    return predict

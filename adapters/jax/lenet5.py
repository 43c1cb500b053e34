"""LeNet-5 over a pytree of parameters, with the convolution of ``jax.lax``.

Follows https://docs.jax.dev/en/latest/101/convolutions.html ("Convolutions").
"""

import jax

from levelfield.adapters.jax.layers import convolve, dense, max_pool


def build(sizes):
    """Sizes of the preset -> ``predict(parameters, image)`` -> logits (batch, classes)."""
    hidden = [f"hidden{number}" for number in range(1, len(sizes["hidden"]) + 1)]

    def predict(parameters, image):
        x = max_pool(jax.nn.relu(convolve(parameters["conv1"], image, padding=2)))
        x = max_pool(jax.nn.relu(convolve(parameters["conv2"], x)))
        x = x.reshape(x.shape[0], -1)  # (batch, height * width * channel)
        for name in hidden:
            x = jax.nn.relu(dense(parameters[name], x))
        return dense(parameters["logits"], x)

    return predict

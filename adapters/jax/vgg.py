"""VGG networks over a pytree of parameters, with the convolution of ``jax.lax``.

Follows https://docs.jax.dev/en/latest/101/convolutions.html ("Convolutions", 2026-11).
"""

import jax

from levelfield.adapters.jax.layers import adaptive_mean_pool, convolve, dense, max_pool


def build(sizes):
    """Sizes of the preset -> ``predict(parameters, image)`` -> logits (batch, classes)."""
    pools = [row[2] for row in sizes["convolutions"]]

    def predict(parameters, image):
        x = image
        for number, pooled in enumerate(pools, start=1):
            x = jax.nn.relu(convolve(parameters[f"conv{number}"], x, padding=1))
            if pooled:
                x = max_pool(x)
        x = adaptive_mean_pool(x, sizes["pooled"])
        x = x.reshape(x.shape[0], -1)  # (batch, height * width * channel)
        for name in ("hidden1", "hidden2"):
            x = jax.nn.relu(dense(parameters[name], x))
        return dense(parameters["logits"], x)

    return predict

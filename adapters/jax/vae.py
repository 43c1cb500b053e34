"""Variational autoencoder over a pytree of parameters.

Follows https://docs.jax.dev/en/latest/101/pytrees.html. The noise of the reparameterisation is an
argument, as https://docs.jax.dev/en/latest/random-numbers.html recommends for all randomness.
"""

import jax
import jax.numpy as jnp

from levelfield.adapters.jax.layers import dense


def build(sizes):
    """-> ``predict(parameters, image, noise)`` -> logits, mean and log_variance."""

    def predict(parameters, image, noise):
        hidden = jax.nn.relu(dense(parameters["encoder"], image))
        mean = dense(parameters["mean"], hidden)
        log_variance = dense(parameters["log_variance"], hidden)
        latent = mean + jnp.exp(0.5 * log_variance) * noise
        hidden = jax.nn.relu(dense(parameters["decoder"], latent))
        logits = dense(parameters["logits"], hidden)
        return {"logits": logits, "mean": mean, "log_variance": log_variance}

    return predict

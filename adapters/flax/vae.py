"""Variational autoencoder as an ``nnx.Module``.

Follows https://github.com/google/flax/tree/main/examples/nnx_toy_examples (05_vae.py); the noise
is an argument.
"""

import jax.numpy as jnp
from flax import nnx


class VAE(nnx.Module):
    """One hidden layer on either side."""

    def __init__(self, features, hidden, latent, *, rngs):
        self.encoder = nnx.Linear(features, hidden, rngs=rngs)
        self.mean = nnx.Linear(hidden, latent, rngs=rngs)
        self.log_variance = nnx.Linear(hidden, latent, rngs=rngs)
        self.decoder = nnx.Linear(latent, hidden, rngs=rngs)
        self.logits = nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, image, noise):
        """(batch, features), (batch, latent) -> logits, mean and log_variance."""
        hidden = nnx.relu(self.encoder(image))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + jnp.exp(0.5 * log_variance) * noise
        logits = self.logits(nnx.relu(self.decoder(latent)))
        return {"logits": logits, "mean": mean, "log_variance": log_variance}


def build(sizes):
    """Sizes of the preset -> the module."""
    return VAE(**sizes, rngs=nnx.Rngs(0))

"""Variational autoencoder, after Chainer's own example; the noise is an argument.

https://github.com/chainer/chainer/blob/v7.8.1/examples/vae/net.py
"""

import chainer
from chainer import functions as F
from chainer import links as L


class VAE(chainer.Chain):
    """One hidden layer on either side."""

    def __init__(self, sizes):
        super().__init__()
        with self.init_scope():
            self.encoder = L.Linear(sizes["features"], sizes["hidden"])
            self.mean = L.Linear(sizes["hidden"], sizes["latent"])
            self.log_variance = L.Linear(sizes["hidden"], sizes["latent"])
            self.decoder = L.Linear(sizes["latent"], sizes["hidden"])
            self.logits = L.Linear(sizes["hidden"], sizes["features"])

    def forward(self, image, noise):
        """(batch, features), (batch, latent) -> logits, mean and log_variance."""
        hidden = F.relu(self.encoder(image))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + F.exp(0.5 * log_variance) * noise
        logits = self.logits(F.relu(self.decoder(latent)))
        return {"logits": logits, "mean": mean, "log_variance": log_variance}


def build(sizes):
    """Build the model."""
    return VAE(sizes)

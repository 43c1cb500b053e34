"""Variational autoencoder, after MXNet's own example; the noise is an argument.

https://github.com/apache/mxnet/blob/1.9.1/example/autoencoder/variational_autoencoder/VAE.py
"""

from mxnet.gluon import nn


class VAE(nn.HybridBlock):
    """One hidden layer on either side."""

    def __init__(self, sizes):
        super().__init__()
        features, hidden, latent = sizes["features"], sizes["hidden"], sizes["latent"]
        self.encoder = nn.Dense(hidden, activation="relu", in_units=features)
        self.mean = nn.Dense(latent, in_units=hidden)
        self.log_variance = nn.Dense(latent, in_units=hidden)
        self.decoder = nn.Dense(hidden, activation="relu", in_units=latent)
        self.logits = nn.Dense(features, in_units=hidden)

    def hybrid_forward(self, F, image, noise):
        """(batch, features), (batch, latent) -> logits, mean and log_variance."""
        hidden = self.encoder(image)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + F.exp(0.5 * log_variance) * noise
        return self.logits(self.decoder(latent)), mean, log_variance


def build(sizes):
    """Build the model."""
    return VAE(sizes)

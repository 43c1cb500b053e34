"""Variational autoencoder; the noise is an argument.

Kingma and Welling's own first implementation was in Theano: https://github.com/dpkingma/nips14-ssl
"""

import theano.tensor as T

from levelfield.adapters.theano.layers import Dense, Model


class VAE(Model):
    """One hidden layer on either side."""

    def __init__(self, sizes):
        super().__init__()
        features, hidden, latent = sizes["features"], sizes["hidden"], sizes["latent"]
        self.encoder = Dense(self, "encoder", features, hidden)
        self.mean = Dense(self, "mean", hidden, latent)
        self.log_variance = Dense(self, "log_variance", hidden, latent)
        self.decoder = Dense(self, "decoder", latent, hidden)
        self.logits = Dense(self, "logits", hidden, features)

    def __call__(self, image, noise):
        """(batch, features), (batch, latent) -> logits, mean and log_variance."""
        hidden = T.nnet.relu(self.encoder(image))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + T.exp(0.5 * log_variance) * noise
        logits = self.logits(T.nnet.relu(self.decoder(latent)))
        return {"logits": logits, "mean": mean, "log_variance": log_variance}


def build(sizes):
    """Build the model."""
    return VAE(sizes)

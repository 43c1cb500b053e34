"""Variational autoencoder as a tf.Module, after "Convolutional Variational Autoencoder".

https://www.tensorflow.org/tutorials/generative/cvae (its encode, reparameterize and decode). The
noise is an argument.
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense


class VAE(tf.Module):
    """One hidden layer on either side."""

    def __init__(self, sizes):
        super().__init__()
        features, hidden, latent = sizes["features"], sizes["hidden"], sizes["latent"]
        self.encoder = Dense(features, hidden, activation=tf.nn.relu)
        self.mean = Dense(hidden, latent)
        self.log_variance = Dense(hidden, latent)
        self.decoder = Dense(latent, hidden, activation=tf.nn.relu)
        self.logits = Dense(hidden, features)

    def encode(self, image):
        """Mean and log variance of the latent distribution."""
        hidden = self.encoder(image)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, latent):
        """Logits of the image."""
        return self.logits(self.decoder(latent))

    def __call__(self, image, noise):
        """(batch, features), (batch, latent) -> logits, mean and log_variance."""
        mean, log_variance = self.encode(image)
        logits = self.decode(noise * tf.exp(log_variance * 0.5) + mean)
        return {"logits": logits, "mean": mean, "log_variance": log_variance}


def build(sizes):
    """Build the model."""
    return VAE(sizes)

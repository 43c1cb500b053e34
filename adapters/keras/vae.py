"""Variational autoencoder as a functional Keras model.

Follows https://keras.io/examples/generative/vae/. The noise is an input. A layer adds the
divergence to the loss, as in
https://keras.io/guides/making_new_layers_and_models_via_subclassing/ ("The add_loss() method").
"""

import keras
from keras import layers, ops


class Divergence(layers.Layer):
    """Add the divergence from the standard normal distribution to the loss."""

    def call(self, mean, log_variance):
        """Return both arguments unchanged."""
        divergences = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
        self.add_loss(ops.mean(ops.sum(divergences, axis=1)))
        return mean, log_variance


class Sampling(layers.Layer):
    """The reparameterisation."""

    def call(self, mean, log_variance, noise):
        """mean + deviation * noise."""
        return mean + ops.exp(0.5 * log_variance) * noise


def build(sizes):
    """Sizes of the preset -> model: image, noise -> logits, mean and log_variance."""
    image = keras.Input((sizes["features"],), name="image")
    noise = keras.Input((sizes["latent"],), name="noise")
    x = layers.Dense(sizes["hidden"], activation="relu", name="encoder")(image)
    mean = layers.Dense(sizes["latent"], name="mean")(x)
    log_variance = layers.Dense(sizes["latent"], name="log_variance")(x)
    mean, log_variance = Divergence()(mean, log_variance)
    x = Sampling()(mean, log_variance, noise)
    x = layers.Dense(sizes["hidden"], activation="relu", name="decoder")(x)
    logits = layers.Dense(sizes["features"], name="logits")(x)
    return keras.Model(
        {"image": image, "noise": noise},
        {"logits": logits, "mean": mean, "log_variance": log_variance},
    )

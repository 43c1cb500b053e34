"""Deep convolutional GAN over a pytree of parameters and one of running statistics.

Follows https://docs.jax.dev/en/latest/101/convolutions.html (``lax.conv_transpose``) and
https://docs.jax.dev/en/latest/stateful-computations.html. The generated images of a training
step's two objectives are computed once: XLA merges equal computations in one program.
"""

import jax
import jax.numpy as jnp
from jax import lax

from levelfield.adapters.jax.layers import batch_norm, convolve


def build(sizes):
    """-> ``predict(parameters, state, latent, training)`` -> (images, state)."""

    def predict(parameters, state, latent, training):
        images, moved = generate(parameters, state, latent, training=training)
        return images, {**state, "generator": moved}

    return predict


def discriminator_loss(parameters, state, inputs):
    """(binary cross-entropy of real against 1 and fake against 0, state after both batches)."""
    fake, _ = generate(parameters, state, inputs["latent"], training=True)
    on_real, moved = discriminate(parameters, state, inputs["image"])
    on_fake, moved = discriminate(parameters, {**state, "discriminator": moved}, fake)
    loss = jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean()
    return loss, {**state, "discriminator": moved}


def generator_loss(parameters, state, inputs):
    """(binary cross-entropy of fake against 1, state)."""
    fake, generator = generate(parameters, state, inputs["latent"], training=True)
    on_fake, discriminator = discriminate(parameters, state, fake)
    moved = {"generator": generator, "discriminator": discriminator}
    return jax.nn.softplus(-on_fake).mean(), moved


def generate(parameters, state, latent, *, training):
    """(batch, 1, 1, latent) -> (images (batch, side, side, channels), state)."""
    layers, statistics, moved, x = parameters["generator"], state["generator"], {}, latent
    for number in range(1, len(statistics) + 1):
        norm = f"norm{number}"
        x = transposed(layers[f"up{number}"], x, "VALID" if number == 1 else "SAME")
        x, moved[norm] = batch_norm(layers[norm], statistics[norm], x, training=training)
        x = jax.nn.relu(x)
    return jnp.tanh(transposed(layers["image"], x, "SAME")), moved


def transposed(layer, x, padding):
    """4x4 kernel; stride 2 doubles the size, "VALID" makes 4x4 of one pixel."""
    # The gradient of a convolution, as in all frameworks: this needs a turned kernel (out, in).
    kernel = layer["kernel"].swapaxes(2, 3)
    strides = (1, 1) if padding == "VALID" else (2, 2)
    return lax.conv_transpose(x, kernel, strides, padding, transpose_kernel=True)


def discriminate(parameters, state, images):
    """(batch, side, side, channels) -> (logits (batch, 1), state), in training."""
    layers, statistics, moved = parameters["discriminator"], state["discriminator"], {}
    x = jax.nn.leaky_relu(convolve(layers["down1"], images, stride=2, padding=1), 0.2)
    for number in range(2, len(statistics) + 2):
        norm = f"norm{number}"
        x = convolve(layers[f"down{number}"], x, stride=2, padding=1)
        x, moved[norm] = batch_norm(layers[norm], statistics[norm], x, training=True)
        x = jax.nn.leaky_relu(x, 0.2)
    return convolve(layers["logits"], x).reshape(len(x), 1), moved

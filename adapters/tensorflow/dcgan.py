"""Deep convolutional GAN as tf.Modules, after "Deep Convolutional Generative Adversarial Network".

https://www.tensorflow.org/tutorials/generative/dcgan. Unlike there, the discriminator is updated
before the generator's loss is computed, not at the same time.
"""

from itertools import pairwise

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import BatchNorm, Conv2D, Conv2DTranspose


class Generator(tf.Module):
    """Transposed convolutions from a latent vector to an image."""

    def __init__(self, sizes):
        super().__init__()
        widths = sizes["widths"][::-1]
        self.up = [Conv2DTranspose(sizes["latent"], widths[0], 4, strides=1, padding="VALID")]
        for before, width in pairwise(widths):
            self.up.append(Conv2DTranspose(before, width, 4, strides=2, padding="SAME"))
        self.norm = [BatchNorm(width) for width in widths]
        self.image = Conv2DTranspose(widths[-1], sizes["channels"], 4, strides=2, padding="SAME")

    def __call__(self, latent, *, training):
        """(batch, 1, 1, latent) -> images (batch, side, side, channels)."""
        x = latent
        for up, norm in zip(self.up, self.norm, strict=True):
            x = tf.nn.relu(norm(up(x), training=training))
        return tf.tanh(self.image(x))


class Discriminator(tf.Module):
    """Convolutions from an image to a logit."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["channels"], *sizes["widths"]]
        self.down = [
            Conv2D(before, width, 4, strides=2, padding="SAME", bias=False)
            for before, width in pairwise(widths)
        ]
        self.norm = [None, *(BatchNorm(width) for width in widths[2:])]
        self.logits = Conv2D(widths[-1], 1, 4, bias=False)

    def __call__(self, image, *, training):
        """(batch, side, side, channels) -> logits (batch, 1)."""
        x = image
        for down, norm in zip(self.down, self.norm, strict=True):
            x = down(x)
            x = tf.nn.leaky_relu(norm(x, training=training) if norm else x, alpha=0.2)
        return tf.reshape(self.logits(x), [x.shape[0], 1])


class DCGAN(tf.Module):
    """Both nets; a call runs the generator."""

    def __init__(self, sizes):
        super().__init__()
        self.generator = Generator(sizes)
        self.discriminator = Discriminator(sizes)

    def __call__(self, latent, *, training):
        """(batch, 1, 1, latent) -> images (batch, side, side, channels)."""
        return self.generator(latent, training=training)


def build(sizes):
    """Build the model."""
    return DCGAN(sizes)


def cross_entropy(labels, logits):
    """Cross-entropy, averaged over the batch."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def losses_of(model, real, fake):
    """The discriminator's loss: real images against 1, generated images against 0."""
    on_real = model.discriminator(real, training=True)
    on_fake = model.discriminator(fake, training=True)
    real_loss = cross_entropy(tf.ones_like(on_real), on_real)
    return real_loss + cross_entropy(tf.zeros_like(on_fake), on_fake)


def fooling_loss(model, fake):
    """The generator's loss: generated images against 1."""
    on_fake = model.discriminator(fake, training=True)
    return cross_entropy(tf.ones_like(on_fake), on_fake)


def discriminator_loss(model, inputs):
    """The discriminator's loss as a function of model and inputs."""
    return losses_of(model, inputs["image"], model.generator(inputs["latent"], training=True))


def generator_loss(model, inputs):
    """The generator's loss as a function of model and inputs."""
    return fooling_loss(model, model.generator(inputs["latent"], training=True))


def train_step(model, optimizers, inputs):
    """Update the discriminator, then the generator, over the same generated images."""
    discriminating, generating = (
        optimizers["discriminator_loss"],
        optimizers["generator_loss"],
    )
    with tf.GradientTape() as generator_tape:
        fake = model.generator(inputs["latent"], training=True)
        with tf.GradientTape() as tape:
            discriminator_loss = losses_of(model, inputs["image"], tf.stop_gradient(fake))
        discriminating.apply_gradients(tape.gradient(discriminator_loss, discriminating.trained))
        generator_loss = fooling_loss(model, fake)
    generating.apply_gradients(generator_tape.gradient(generator_loss, generating.trained))
    return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}

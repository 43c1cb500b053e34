"""Deep convolutional GAN as ``nnx.Module``s.

Follows https://flax.readthedocs.io/en/latest/mnist_tutorial.html (``nnx.BatchNorm``) and
https://flax.readthedocs.io/en/latest/guides/filters_guide.html (each objective has an optimiser for
its part of the parameters). The generated images of both objectives are computed once: XLA merges
equal computations in one program.
"""

from functools import partial
from itertools import pairwise

import optax
from flax import nnx

norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)
conv = partial(nnx.Conv, kernel_size=(4, 4), use_bias=False)
# The gradient of a convolution. Without transpose_kernel, flax turns the kernel the other way.
transposed = partial(nnx.ConvTranspose, kernel_size=(4, 4), use_bias=False, transpose_kernel=True)


class Generator(nnx.Module):
    """Transposed convolutions from a latent vector to an image."""

    def __init__(self, sizes, *, rngs):
        widths = sizes["widths"][::-1]
        up = [transposed(sizes["latent"], widths[0], strides=(1, 1), padding="VALID", rngs=rngs)]
        for before, width in pairwise(widths):
            up.append(transposed(before, width, strides=(2, 2), padding="SAME", rngs=rngs))
        self.up = nnx.List(up)
        self.norm = nnx.List([norm(width, rngs=rngs) for width in widths])
        self.image = transposed(
            widths[-1], sizes["channels"], strides=(2, 2), padding="SAME", rngs=rngs
        )

    def __call__(self, latent):
        """(batch, 1, 1, latent) -> images (batch, side, side, channels)."""
        x = latent
        for up, normalise in zip(self.up, self.norm, strict=True):
            x = nnx.relu(normalise(up(x)))
        return nnx.tanh(self.image(x))


class Discriminator(nnx.Module):
    """Convolutions from an image to a logit."""

    def __init__(self, sizes, *, rngs):
        widths = [sizes["channels"], *sizes["widths"]]
        self.down = nnx.List(
            [
                conv(before, width, strides=(2, 2), padding=1, rngs=rngs)
                for before, width in pairwise(widths)
            ]
        )
        norms = [norm(width, rngs=rngs) for width in widths[2:]]
        self.norm = nnx.List([nnx.Sequential(), *norms])
        self.logits = conv(widths[-1], 1, padding="VALID", rngs=rngs)

    def __call__(self, image):
        """(batch, side, side, channels) -> logits (batch, 1)."""
        x = image
        for down, normalise in zip(self.down, self.norm, strict=True):
            x = nnx.leaky_relu(normalise(down(x)), 0.2)
        return self.logits(x).reshape(len(x), 1)


class DCGAN(nnx.Module):
    """Both nets; a call runs the generator."""

    def __init__(self, sizes, *, rngs):
        self.generator = Generator(sizes, rngs=rngs)
        self.discriminator = Discriminator(sizes, rngs=rngs)

    def __call__(self, latent):
        """(batch, 1, 1, latent) -> images (batch, side, side, channels)."""
        return self.generator(latent)


def build(sizes):
    """Sizes of the preset -> the module."""
    return DCGAN(sizes, rngs=nnx.Rngs(0))


def against(logits, label):
    """Binary cross-entropy against one label for all examples."""
    return optax.sigmoid_binary_cross_entropy(logits, label).mean()


def discriminator_loss(model, inputs):
    """Real images against 1, generated images against 0; keep the generator's statistics."""
    fake = nnx.clone(model.generator)(inputs["latent"])
    real = against(model.discriminator(inputs["image"]), 1.0)
    return real + against(model.discriminator(fake), 0.0)


def generator_loss(model, inputs):
    """The generator's loss: generated images against 1."""
    return against(model.discriminator(model.generator(inputs["latent"])), 1.0)

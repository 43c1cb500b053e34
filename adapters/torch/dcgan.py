"""Deep convolutional GAN, after PyTorch's DCGAN tutorial.

https://docs.pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class Generator(nn.Module):
    """Transposed convolutions from a latent vector to an image."""

    def __init__(self, sizes):
        super().__init__()
        widths = sizes["widths"][::-1]
        up = [nn.ConvTranspose2d(sizes["latent"], widths[0], 4, bias=False)]
        for before, width in pairwise(widths):
            up.append(nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False))
        self.up = nn.ModuleList(up)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.image = nn.ConvTranspose2d(
            widths[-1], sizes["channels"], 4, stride=2, padding=1, bias=False
        )

    def forward(self, latent):
        """(batch, latent, 1, 1) -> images (batch, channels, side, side)."""
        x = latent
        for up, norm in zip(self.up, self.norm, strict=True):
            x = F.relu(norm(up(x)))
        return torch.tanh(self.image(x))


class Discriminator(nn.Module):
    """Convolutions from an image to a logit."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["channels"], *sizes["widths"]]
        self.down = nn.ModuleList(
            nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False)
            for before, width in pairwise(widths)
        )
        norms = [nn.BatchNorm2d(width) for width in widths[2:]]
        self.norm = nn.ModuleList([nn.Identity(), *norms])
        self.logits = nn.Conv2d(widths[-1], 1, 4, bias=False)

    def forward(self, image):
        """(batch, channels, side, side) -> logits (batch, 1)."""
        x = image
        for down, norm in zip(self.down, self.norm, strict=True):
            x = F.leaky_relu(norm(down(x)), 0.2)
        return torch.flatten(self.logits(x), 1)


class DCGAN(nn.Module):
    """Both nets; a call runs the generator."""

    def __init__(self, sizes):
        super().__init__()
        self.generator = Generator(sizes)
        self.discriminator = Discriminator(sizes)

    def forward(self, latent):
        """(batch, latent, 1, 1) -> images (batch, channels, side, side)."""
        return self.generator(latent)


def build(sizes):
    """Build the model."""
    return DCGAN(sizes)


def against(logits, label):
    """Binary cross-entropy against one label for all examples."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def discriminator_loss(model, inputs):
    """The discriminator's loss: real images against 1, generated images against 0."""
    fake = model.generator(inputs["latent"]).detach()
    real = against(model.discriminator(inputs["image"]), 1.0)
    return real + against(model.discriminator(fake), 0.0)


def generator_loss(model, inputs):
    """The generator's loss: generated images against 1."""
    return against(model.discriminator(model.generator(inputs["latent"])), 1.0)


def train_step(model, optimizers, inputs):
    """Update the discriminator, then the generator, over the same generated images."""
    fake = model.generator(inputs["latent"])
    optimizers["discriminator_loss"].zero_grad()
    on_real = against(model.discriminator(inputs["image"]), 1.0)
    on_real.backward()
    on_fake = against(model.discriminator(fake.detach()), 0.0)
    on_fake.backward()
    optimizers["discriminator_loss"].step()
    optimizers["generator_loss"].zero_grad()
    fooled = against(model.discriminator(fake), 1.0)
    fooled.backward()
    optimizers["generator_loss"].step()
    return {
        "discriminator_loss": (on_real + on_fake).detach(),
        "generator_loss": fooled.detach(),
    }

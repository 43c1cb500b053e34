"""Deep convolutional GAN, after PyTorch's DCGAN tutorial.

https://docs.pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html
"""

import torch
from torch import nn
from torch.nn import functional as F


class Generator(nn.Module):
    """Transposed convolutions from a latent vector to an image."""

    def __init__(self, sizes):
        super().__init__()
        filters = sizes["filters"] * 2 ** (sizes["doublings"] - 1)
        up, norm = [nn.ConvTranspose2d(sizes["latent"], filters, 4, bias=False)], []
        for _ in range(1, sizes["doublings"]):
            norm.append(nn.BatchNorm2d(filters))
            up.append(nn.ConvTranspose2d(filters, filters // 2, 4, stride=2, padding=1, bias=False))
            filters //= 2
        norm.append(nn.BatchNorm2d(filters))
        self.up, self.norm = nn.ModuleList(up), nn.ModuleList(norm)
        self.image = nn.ConvTranspose2d(
            filters, sizes["channels"], 4, stride=2, padding=1, bias=False
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
        filters = sizes["filters"]
        down = [nn.Conv2d(sizes["channels"], filters, 4, stride=2, padding=1, bias=False)]
        norm = [nn.Identity()]
        for _ in range(1, sizes["doublings"]):
            down.append(nn.Conv2d(filters, 2 * filters, 4, stride=2, padding=1, bias=False))
            norm.append(nn.BatchNorm2d(2 * filters))
            filters *= 2
        self.down, self.norm = nn.ModuleList(down), nn.ModuleList(norm)
        self.logits = nn.Conv2d(filters, 1, 4, bias=False)

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

"""Variational autoencoder, after PyTorch's own example.

https://github.com/pytorch/examples/blob/main/vae/main.py. The noise is an argument.
"""

import torch
from torch import nn
from torch.nn import functional as F


class VAE(nn.Module):
    """One hidden layer on either side."""

    def __init__(self, sizes):
        super().__init__()
        self.encoder = nn.Linear(sizes["features"], sizes["hidden"])
        self.mean = nn.Linear(sizes["hidden"], sizes["latent"])
        self.log_variance = nn.Linear(sizes["hidden"], sizes["latent"])
        self.decoder = nn.Linear(sizes["latent"], sizes["hidden"])
        self.logits = nn.Linear(sizes["hidden"], sizes["features"])

    def encode(self, image):
        """Mean and log variance of the latent distribution."""
        hidden = F.relu(self.encoder(image))
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, latent):
        """Logits of the image."""
        return self.logits(F.relu(self.decoder(latent)))

    def forward(self, image, noise):
        """(batch, features), (batch, latent) -> logits, mean and log_variance."""
        mean, log_variance = self.encode(image)
        logits = self.decode(mean + torch.exp(0.5 * log_variance) * noise)
        return {"logits": logits, "mean": mean, "log_variance": log_variance}


def build(sizes):
    """Build the model."""
    return VAE(sizes)

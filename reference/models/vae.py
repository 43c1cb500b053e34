"""Variational autoencoder with one hidden layer in encoder and decoder.

Source: D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014, section 3 and
appendices B and C: Bernoulli decoder, Gaussian encoder; ReLU units as in today's examples of all
frameworks. The noise of the reparameterisation is an input: the model itself is not random.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from levelfield.reference.spec import Array, ArraySpec, Layers, Model, Objective, Sizes, dimension


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """image (batch, in) of values from 0 to 1, and noise (batch, in)."""
    rows = dimension("batch", batch)
    return (
        ArraySpec("image", (rows, dimension("in", sizes["features"]))),
        ArraySpec("noise", (rows, dimension("in", sizes["latent"]))),
    )


def draw(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Array]:
    """Draw uniform grey values."""
    return {"image": stream.random((batch, sizes["features"]), dtype=np.float32)}


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Image and noise -> logits (batch, features), mean and log_variance (batch, latent)."""
    x = nn.relu(nn.dense(inputs["image"], "encoder", sizes["hidden"]))
    mean = nn.dense(x, "mean", sizes["latent"])
    log_variance = nn.dense(x, "log_variance", sizes["latent"])
    deviation = nn.exp(nn.scale(log_variance, 0.5))
    latent = nn.add(mean, nn.multiply(deviation, inputs["noise"]))
    x = nn.relu(nn.dense(latent, "decoder", sizes["hidden"]))
    logits = nn.dense(x, "logits", sizes["features"])
    return {"logits": logits, "mean": mean, "log_variance": log_variance}


MODELS = (
    Model(
        name="vae",
        title="Variational autoencoder",
        family="generative",
        source="Kingma, Welling 2013",
        presets={
            "tiny": {"features": 24, "hidden": 12, "latent": 3},
            "small": {"features": 784, "hidden": 256, "latent": 16},
            "paper": {"features": 784, "hidden": 400, "latent": 20},
        },
        inputs=inputs,
        forward=forward,
        objectives=(
            Objective("evidence_lower_bound", ("logits", "mean", "log_variance"), ("image",)),
        ),
        draw=draw,
        idle="encoder/bias",
        still=("encoder/kernel",),
    ),
)

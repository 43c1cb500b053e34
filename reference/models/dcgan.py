"""Deep convolutional generative adversarial network: two nets, two objectives in one step.

Sources: A. Radford, L. Metz, S. Chintala, "Unsupervised representation learning with deep
convolutional generative adversarial networks", ICLR 2016, section 3; objectives of I. Goodfellow et
al. 2014. Widths (512 to 64) and windows (4x4) are those of PyTorch's tutorial (November
2026): https://docs.pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html. Figure 1 of the paper
has twice these widths, 1024 to 128.

A training step is algorithm 1 of Goodfellow et al. with k = 1. First the discriminator learns from
a real and a generated batch, each normalised by itself. Then the generator learns against it. The
generator runs once. The discriminator's running statistics are updated by the real batch, the
generated batch and, after its update, the generated batch again.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, ArraySpec, Layers, Model, Objective, Sizes, dimension


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """image (batch, height, width, channel); latent (batch, 1, 1, channel)."""
    rows, side = dimension("batch", batch), sizes["side"]
    image = (rows, dimension("height", side), dimension("width", side))
    latent = (rows, dimension("height", 1), dimension("width", 1))
    return (
        ArraySpec("image", (*image, dimension("channel", sizes["channels"]))),
        ArraySpec("latent", (*latent, dimension("channel", sizes["latent"]))),
    )


def generator(nn: Layers, sizes: Sizes, latent: Array) -> Array:
    """(batch, 1, 1, latent) -> images (batch, side, side, channels) from -1 to 1."""
    first, *others = reversed(sizes["widths"])
    x = nn.conv2d_transpose(latent, "generator/up1", first, window=4, stride=1, padding=0)
    x = nn.relu(nn.batch_norm(x, "generator/norm1"))
    for number, filters in enumerate(others, start=2):
        x = nn.conv2d_transpose(x, f"generator/up{number}", filters, window=4, stride=2, padding=1)
        x = nn.relu(nn.batch_norm(x, f"generator/norm{number}"))
    x = nn.conv2d_transpose(x, "generator/image", sizes["channels"], window=4, stride=2, padding=1)
    return nn.tanh(x)


def discriminator(nn: Layers, sizes: Sizes, image: Array) -> Array:
    """(batch, side, side, channels) -> logits (batch, 1)."""
    first, *others = sizes["widths"]
    x = nn.conv2d(image, "discriminator/down1", first, window=4, stride=2, padding=1, bias=False)
    x = nn.leaky_relu(x, 0.2)
    for number, filters in enumerate(others, start=2):
        x = nn.conv2d(
            x, f"discriminator/down{number}", filters, window=4, stride=2, padding=1, bias=False
        )
        x = nn.leaky_relu(nn.batch_norm(x, f"discriminator/norm{number}"), 0.2)
    return nn.flatten(nn.conv2d(x, "discriminator/logits", 1, window=4, bias=False))


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Latent -> images; only the generator is used after training."""
    return {"images": generator(nn, sizes, inputs["latent"])}


def both(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The discriminator's logits of real and of generated images."""
    fake = generator(nn, sizes, inputs["latent"])
    return {
        "real": discriminator(nn, sizes, inputs["image"]),
        "fake": discriminator(nn, sizes, fake),
    }


def fooling(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The discriminator's logits of generated images."""
    return {"fake": discriminator(nn, sizes, generator(nn, sizes, inputs["latent"]))}


def derive(sizes: Sizes) -> Sizes:
    """side: of the images; widths: the discriminator's filters, the generator's in reverse."""
    doublings = range(sizes["doublings"])
    return {
        "side": 4 * 2 ** sizes["doublings"],
        "widths": tuple(sizes["filters"] * 2**number for number in doublings),
    }


def _sizes(doublings: int, filters: int, latent: int, channels: int) -> Sizes:
    return {"doublings": doublings, "filters": filters, "latent": latent, "channels": channels}


MODELS = (
    Model(
        name="dcgan",
        title="Deep convolutional GAN",
        family="generative",
        source="Radford, Metz, Chintala 2015",
        presets={
            "tiny": _sizes(2, 4, 6, 3),
            "small": _sizes(3, 16, 32, 1),
            "paper": _sizes(4, 64, 100, 3),
        },
        inputs=inputs,
        forward=forward,
        objectives=(
            Objective(
                "real_and_fake",
                ("real", "fake"),
                name="discriminator_loss",
                forward=both,
                trains="discriminator/",
                moves="discriminator/",
            ),
            Objective(
                "fooled", ("fake",), name="generator_loss", forward=fooling, trains="generator/"
            ),
        ),
        derive=derive,
        idle="generator/norm1/bias",
        still=("generator/up1/kernel",),
    ),
)

"""AlexNet in its form for one tower: five convolutions, three dense layers.

Source: A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014,
arXiv:1404.5997, with the filters (64, 192, 384, 256, 256) of footnote 1. It has neither local
response normalisation nor groups. Max pooling has overlapping windows, 3x3 with stride 2. Adaptive
mean pooling before the dense layers is that of torchvision, which takes images of any size:
https://docs.pytorch.org/vision/stable/models/alexnet.html (November 2026). At 224 pixels it
changes nothing. Dropout is left out, because no two frameworks draw the same units.
The tiny preset is not square, and the windows of its adaptive pooling overlap.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, Layers, Model, Objective, Sizes, labelled_images


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """(batch, height, width, channels) -> logits (batch, classes)."""
    first, second, *others = sizes["filters"]
    x = nn.relu(nn.conv2d(inputs["image"], "conv1", first, window=11, stride=4, padding=2))
    x = nn.max_pool2d(x, window=3, stride=2)
    x = nn.relu(nn.conv2d(x, "conv2", second, window=5, padding=2))
    x = nn.max_pool2d(x, window=3, stride=2)
    for number, filters in enumerate(others, start=3):
        x = nn.relu(nn.conv2d(x, f"conv{number}", filters, window=3, padding=1))
    x = nn.adaptive_mean_pool2d(nn.max_pool2d(x, window=3, stride=2), sizes["pooled"])
    x = nn.flatten(x)
    for number, units in enumerate(sizes["hidden"], start=1):
        x = nn.relu(nn.dense(x, f"hidden{number}", units))
    return {"logits": nn.dense(x, "logits", sizes["classes"])}


def derive(sizes: Sizes) -> Sizes:
    """flattened: the values of an image after adaptive pooling to ``pooled`` rows and columns."""
    return {"flattened": sizes["pooled"] ** 2 * sizes["filters"][-1]}


def _sizes(
    image: tuple[int, int, int],
    filters: tuple[int, ...],
    pooled: int,
    hidden: tuple[int, int],
    classes: int,
) -> Sizes:
    height, width, channels = image
    return {
        "height": height,
        "width": width,
        "channels": channels,
        "filters": filters,
        "pooled": pooled,
        "hidden": hidden,
        "classes": classes,
    }


MODELS = (
    Model(
        name="alexnet",
        title="AlexNet",
        family="convolutional",
        source="Krizhevsky 2014, one tower",
        presets={
            "tiny": _sizes((128, 160, 3), (3, 4, 6, 5, 5), 2, (12, 11), 10),
            "small": _sizes((128, 128, 1), (8, 24, 48, 32, 32), 2, (64, 64), 10),
            "paper": _sizes((224, 224, 3), (64, 192, 384, 256, 256), 6, (4096, 4096), 1000),
        },
        inputs=labelled_images,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="digits",
        idle="hidden1/bias",
        still=("hidden1/kernel",),
    ),
)

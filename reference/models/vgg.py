"""VGG networks without batch norm: stages of 3x3 convolutions, then three dense layers.

Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image
recognition", ICLR 2015, table 1, columns A (11 layers) and D (16 layers). Adaptive mean pooling
before the dense layers is that of torchvision, which takes images of any size:
https://docs.pytorch.org/vision/stable/models/vgg.html (November 2026). At 224 pixels it
changes nothing. Dropout is left out, because no two frameworks draw the same units.
The tiny presets are not square, and the windows of their adaptive pooling overlap.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, Layers, Model, Objective, Sizes, labelled_images


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """(batch, height, width, channels) -> logits (batch, classes)."""
    x = inputs["image"]
    for number, (_, filters, pools) in enumerate(sizes["convolutions"], start=1):
        x = nn.relu(nn.conv2d(x, f"conv{number}", filters, window=3, padding=1))
        if pools:
            x = nn.max_pool2d(x, window=2)
    x = nn.flatten(nn.adaptive_mean_pool2d(x, sizes["pooled"]))
    for number, units in enumerate(sizes["hidden"], start=1):
        x = nn.relu(nn.dense(x, f"hidden{number}", units))
    return {"logits": nn.dense(x, "logits", sizes["classes"])}


def derive(sizes: Sizes) -> Sizes:
    """convolutions: for each its input channels, its filters, and whether a pooling follows.

    flattened: the values of an image after adaptive pooling to ``pooled`` rows and columns.
    """
    rows, before = [], sizes["channels"]
    for count, filters in zip(sizes["depths"], sizes["filters"], strict=True):
        for number in range(1, count + 1):
            rows.append((before, filters, number == count))
            before = filters
    return {"convolutions": tuple(rows), "flattened": sizes["pooled"] ** 2 * before}


def _sizes(
    depths: tuple[int, ...],
    filters: tuple[int, ...],
    image: tuple[int, int, int],
    pooled: int,
    *,
    hidden: tuple[int, int],
    classes: int = 10,
) -> Sizes:
    height, width, channels = image
    return {
        "depths": depths,
        "filters": filters,
        "height": height,
        "width": width,
        "channels": channels,
        "pooled": pooled,
        "hidden": hidden,
        "classes": classes,
    }


def _model(layers: int, depths: tuple[int, ...], tiny: tuple[int, ...]) -> Model:
    return Model(
        name=f"vgg{layers}",
        title=f"VGG-{layers}",
        family="convolutional",
        source="Simonyan and Zisserman 2014, no batch norm",
        presets={
            "tiny": _sizes(tiny, (4, 5, 6), (24, 36, 3), 2, hidden=(12, 11)),
            "small": _sizes(depths[1:], (8, 16, 32, 64), (48, 48, 1), 2, hidden=(64, 64)),
            "paper": _sizes(
                depths,
                (64, 128, 256, 512, 512),
                (224, 224, 3),
                7,
                hidden=(4096, 4096),
                classes=1000,
            ),
        },
        inputs=labelled_images,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="digits",
        idle="hidden1/bias",
        still=("hidden1/kernel",),
        module="vgg",
    )


MODELS = (
    _model(11, (1, 1, 2, 2, 2), tiny=(1, 1, 2)),
    _model(16, (2, 2, 3, 3, 3), tiny=(2, 2, 3)),
)

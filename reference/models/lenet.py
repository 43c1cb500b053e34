"""LeNet-5 in its modern form: ReLU, max pooling, padding 2 in the first convolution.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86(11), 1998, section II.B. The tanh units, trainable
subsampling and radial-basis output of the original are replaced as in today's textbooks.
The tiny preset is not square, so that an exchange of height and width shows.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, Layers, Model, Objective, Sizes, labelled_images


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """(batch, height, width, channels) -> logits (batch, classes)."""
    first, second = sizes["filters"]
    x = nn.relu(nn.conv2d(inputs["image"], "conv1", first, window=5, padding=2))
    x = nn.max_pool2d(x, window=2)
    x = nn.relu(nn.conv2d(x, "conv2", second, window=5))
    x = nn.flatten(nn.max_pool2d(x, window=2))
    for number, units in enumerate(sizes["hidden"], start=1):
        x = nn.relu(nn.dense(x, f"hidden{number}", units))
    return {"logits": nn.dense(x, "logits", sizes["classes"])}


def derive(sizes: Sizes) -> Sizes:
    """flattened: the values of an image after both poolings by 2; conv2 has no padding."""
    height, width = ((sizes[side] // 2 - 4) // 2 for side in ("height", "width"))
    return {"flattened": height * width * sizes["filters"][-1]}


def _sizes(height: int, width: int, filters: tuple[int, int], hidden: tuple[int, int]) -> Sizes:
    return {
        "height": height,
        "width": width,
        "channels": 1,
        "filters": filters,
        "hidden": hidden,
        "classes": 10,
    }


MODELS = (
    Model(
        name="lenet5",
        title="LeNet-5",
        family="convolutional",
        source="LeCun et al. 1998, modern form",
        presets={
            "tiny": _sizes(16, 20, (3, 4), (12, 11)),
            "small": _sizes(16, 16, (6, 16), (60, 42)),
            "paper": _sizes(28, 28, (6, 16), (120, 84)),
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

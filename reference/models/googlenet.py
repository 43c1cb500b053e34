"""GoogLeNet with batch norm, without auxiliary heads: inception modules of four branches.

Source: C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, table 1, in the form of
torchvision (https://docs.pytorch.org/vision/stable/models/googlenet.html, November 2026):
every convolution has a batch norm and no bias, the third branch has windows of 3x3 and not 5x5, and
the last max pooling between modules has windows of 2x2. The published number of parameters is that
of this form. Max pooling with stride 2 rounds up: its last window may extend beyond the image.
The epsilon of batch norm is that of all models here, 1e-5, and not torchvision's 1e-3. Dropout is
left out, because no two frameworks draw the same units.
The tiny preset is not square. It has a pooling that rounds up for windows of 3x3 and of 2x2.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, Layers, Model, Objective, Sizes, labelled_images

# Filters of a module: branch 1; branch 2, first and second; branch 3, first and second; branch 4.
Module = tuple[int, int, int, int, int, int]
PAPER: tuple[tuple[Module, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# A batch norm after a 1x1 convolution undoes a shift of its input. If a ReLU cuts no value of a
# channel that survives the pooling before it, the channel's shift has no gradient. Adam would move
# it by rounding. Few filters and many pixels leave draws without such a channel.
TINY_STEM = (6, 6, 8)
TINY_STAGES: tuple[tuple[Module, ...], ...] = (((4, 4, 6, 4, 4, 4),), ((6, 4, 6, 4, 4, 4),))


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """(batch, height, width, channels) -> logits (batch, classes)."""
    first, second, third = sizes["stem"]
    x = normalised(nn, inputs["image"], "stem1", first, window=7, stride=2)
    x = nn.max_pool2d(x, window=3, stride=2, ceil=True)
    x = normalised(nn, x, "stem2", second, window=1)
    x = normalised(nn, x, "stem3", third, window=3)
    for number, (_, filters, pool) in enumerate(sizes["module_sizes"], start=1):
        if pool:
            x = nn.max_pool2d(x, window=pool, stride=2, ceil=True)
        x = inception(nn, x, f"inceptions{number}", filters)
    return {"logits": nn.dense(nn.mean_pool2d(x), "logits", sizes["classes"])}


def normalised(
    nn: Layers, x: Array, name: str, filters: int, *, window: int, stride: int = 1
) -> Array:
    """Convolution with padding of half a window, batch norm, ReLU."""
    padding = window // 2
    x = nn.conv2d(
        x, f"{name}/conv", filters, window=window, stride=stride, padding=padding, bias=False
    )
    return nn.relu(nn.batch_norm(x, f"{name}/norm"))


def inception(nn: Layers, x: Array, name: str, filters: Module) -> Array:
    """Four branches next to each other; the channels of their outputs are concatenated."""
    one, first2, second2, first3, second3, four = filters
    branch1 = normalised(nn, x, f"{name}/branch1", one, window=1)
    branch2 = normalised(nn, x, f"{name}/reduce2", first2, window=1)
    branch2 = normalised(nn, branch2, f"{name}/branch2", second2, window=3)
    branch3 = normalised(nn, x, f"{name}/reduce3", first3, window=1)
    branch3 = normalised(nn, branch3, f"{name}/branch3", second3, window=3)
    branch4 = nn.max_pool2d(x, window=3, stride=1, padding=1)
    branch4 = normalised(nn, branch4, f"{name}/branch4", four, window=1)
    return nn.concatenate(branch1, branch2, branch3, branch4)


def derive(sizes: Sizes) -> Sizes:
    """module_sizes: for each module its input channels, its filters, the pooling before it.

    The pooling is the side of its windows, or 0 where there is none: the first module of each stage
    has one, 2 in the last stage and 3 in earlier stages. pooled: the channels of the last module,
    which the dense head reads.
    """
    rows, before = [], sizes["stem"][-1]
    for stage, modules in enumerate(sizes["stages"], start=1):
        pool = 2 if stage == len(sizes["stages"]) else 3
        for number, filters in enumerate(modules):
            rows.append((before, filters, pool if number == 0 else 0))
            before = filters[0] + filters[2] + filters[4] + filters[5]
    return {"module_sizes": tuple(rows), "pooled": before}


def _sizes(
    stem: tuple[int, int, int],
    stages: tuple[tuple[Module, ...], ...],
    image: tuple[int, int, int],
    classes: int,
) -> Sizes:
    height, width, channels = image
    return {
        "stem": stem,
        "stages": stages,
        "height": height,
        "width": width,
        "channels": channels,
        "classes": classes,
    }


MODELS = (
    Model(
        name="googlenet",
        title="GoogLeNet",
        family="convolutional",
        source="Szegedy et al. 2014, with batch norm",
        presets={
            "tiny": _sizes(TINY_STEM, TINY_STAGES, (68, 76, 3), 10),
            "small": _sizes(
                (8, 8, 24),
                (
                    ((8, 12, 16, 2, 4, 4), (16, 16, 24, 4, 12, 8)),
                    ((24, 12, 26, 2, 6, 8), (32, 20, 40, 4, 16, 16)),
                    ((48, 24, 48, 6, 16, 16),),
                ),
                (48, 48, 1),
                10,
            ),
            "paper": _sizes((64, 64, 192), PAPER, (224, 224, 3), 1000),
        },
        inputs=labelled_images,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="digits",
        idle="inceptions1/reduce2/norm/bias",
        still=("inceptions1/reduce2/conv/kernel",),
    ),
)

"""Residual networks with batch norm: basic blocks (18 layers) and bottlenecks (50, 101, 152).

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016,
table 1 and section 3.3 (shortcut B: a projection where the shape changes). A bottleneck has its
stride on the 3x3 kernel, as "version 1.5" of today's model libraries, not on the first 1x1 kernel.
The tiny presets keep both kinds of block, of shortcut and of stride. Their image is not square.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, Layers, Model, Objective, Sizes, labelled_images

EXPANSION = {"basic": 1, "bottleneck": 4}
# Channels of the input of a tiny preset's strided projection. With fewer than 8 (AVX2) or 16
# (AVX-512) channels last, oneDNN's gradient of that kernel writes beyond its buffer. The process
# then crashes at some later time (oneDNN 3.12, issue 6035, open in November 2026).
TINY_CHANNELS = 16


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """(batch, height, width, channels) -> logits (batch, classes)."""
    width = sizes["width0"]
    x = nn.conv2d(inputs["image"], "stem", width, window=7, stride=2, padding=3, bias=False)
    x = nn.relu(nn.batch_norm(x, "stem_norm"))
    x = nn.max_pool2d(x, window=3, stride=2, padding=1)
    block_of = basic if sizes["block"] == "basic" else bottleneck
    for number, (before, filters, outer, stride) in enumerate(sizes["block_sizes"], start=1):
        name = f"blocks{number}"
        y = block_of(nn, x, name, filters=filters, outer=outer, stride=stride)
        if stride != 1 or before != outer:
            x = nn.conv2d(x, f"{name}/shortcut", outer, window=1, stride=stride, bias=False)
            x = nn.batch_norm(x, f"{name}/shortcut_norm")
        x = nn.relu(nn.add(x, y))
    return {"logits": nn.dense(nn.mean_pool2d(x), "logits", sizes["classes"])}


def basic(nn: Layers, x: Array, name: str, *, filters: int, outer: int, stride: int) -> Array:
    """Two 3x3 kernels."""
    x = nn.conv2d(x, f"{name}/conv1", filters, window=3, stride=stride, padding=1, bias=False)
    x = nn.relu(nn.batch_norm(x, f"{name}/norm1"))
    x = nn.conv2d(x, f"{name}/conv2", outer, window=3, padding=1, bias=False)
    return nn.batch_norm(x, f"{name}/norm2")


def bottleneck(nn: Layers, x: Array, name: str, *, filters: int, outer: int, stride: int) -> Array:
    """1x1, 3x3 with the stride, and 1x1 to the outer channels."""
    x = nn.conv2d(x, f"{name}/conv1", filters, window=1, bias=False)
    x = nn.relu(nn.batch_norm(x, f"{name}/norm1"))
    x = nn.conv2d(x, f"{name}/conv2", filters, window=3, stride=stride, padding=1, bias=False)
    x = nn.relu(nn.batch_norm(x, f"{name}/norm2"))
    x = nn.conv2d(x, f"{name}/conv3", outer, window=1, bias=False)
    return nn.batch_norm(x, f"{name}/norm3")


def derive(sizes: Sizes) -> Sizes:
    """block_sizes: for each block its input channels, filters, outer channels and stride.

    pooled: the outer channels of the last block, which the dense head reads.
    """
    rows, before = [], sizes["width0"]
    for stage, count in enumerate(sizes["blocks"]):
        filters = sizes["width0"] * 2**stage
        outer = filters * EXPANSION[sizes["block"]]
        for block in range(count):
            rows.append((before, filters, outer, 2 if stage > 0 and block == 0 else 1))
            before = outer
    return {"block_sizes": tuple(rows), "pooled": before}


def _sizes(
    block: str, blocks: tuple[int, ...], width: int, image: tuple[int, int, int], classes: int
) -> Sizes:
    height, columns, channels = image
    return {
        "block": block,
        "blocks": blocks,
        "width0": width,
        "height": height,
        "width": columns,
        "channels": channels,
        "classes": classes,
    }


def _model(
    layers: int,
    block: str,
    blocks: tuple[int, ...],
    *,
    small: tuple[int, ...] = (1, 1, 1, 1),
) -> Model:
    return Model(
        name=f"resnet{layers}",
        title=f"ResNet-{layers}",
        family="convolutional",
        source="He et al. 2015, stride on the 3x3",
        presets={
            "tiny": _sizes(block, (1, 2), TINY_CHANNELS // EXPANSION[block], (24, 32, 3), 10),
            "small": _sizes(block, small, 16, (32, 32, 1), 10),
            "paper": _sizes(block, blocks, 64, (224, 224, 3), 1000),
        },
        inputs=labelled_images,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="digits",
        idle="blocks1/norm1/bias",
        still=("blocks1/conv1/kernel",),
        module="resnet",
    )


MODELS = (
    _model(18, "basic", (2, 2, 2, 2)),
    _model(50, "bottleneck", (3, 4, 6, 3)),
    _model(101, "bottleneck", (3, 4, 23, 3), small=(1, 1, 2, 1)),
    _model(152, "bottleneck", (3, 8, 36, 3), small=(1, 2, 3, 1)),
)

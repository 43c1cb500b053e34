"""Residual networks as a prototxt, after those of their authors, with the stride on the 3x3.

https://github.com/KaimingHe/deep-residual-networks/tree/master/prototxt
"""

from levelfield.adapters.caffe.layers import (
    batch_norm,
    convolution,
    inner_product,
    layer,
    max_pooling,
    relu,
)


def normalized(name, norm, bottom, filters, window, stride=1):
    """A convolution without bias and a batch norm."""
    text = convolution(name, bottom, filters, window, stride, window // 2, bias=False)
    return text + batch_norm(norm, name)


def basic(name, bottom, filters, outer, stride):
    """Two 3x3 kernels; the text and its top."""
    first, second = name + "/conv1", name + "/conv2"
    text = normalized(first, name + "/norm1", bottom, filters, 3, stride) + relu(first)
    return text + normalized(second, name + "/norm2", first, outer, 3), second


def bottleneck(name, bottom, filters, outer, stride):
    """1x1, 3x3 with the stride, 1x1; the text and its top."""
    first, second, third = (f"{name}/conv{number}" for number in (1, 2, 3))
    text = normalized(first, name + "/norm1", bottom, filters, 1) + relu(first)
    text += normalized(second, name + "/norm2", first, filters, 3, stride) + relu(second)
    return text + normalized(third, name + "/norm3", second, outer, 1), third


def stem_pooling(sizes):
    """3x3 pooling with stride 2; removes the row and the column that rounding up adds."""
    text, top = max_pooling("pool", "stem", 3, 2, pad=1), "pool"
    for axis, size in ((2, sizes["height"]), (3, sizes["width"])):
        behind_stem = (size + 1) // 2
        if behind_stem % 2 == 0:
            name = f"pool/axis{axis}"
            settings = f"slice_param {{ axis: {axis} slice_point: {behind_stem // 2} }}"
            text += layer(name, "Slice", [top], [name, name + "/rest"], settings)
            top = name
    return text, top


def build(sizes):
    """image (batch, channels, height, width) -> logits (batch, classes)."""
    block = bottleneck if sizes["block"] == "bottleneck" else basic
    text = normalized("stem", "stem_norm", "image", sizes["width0"], 7, 2) + relu("stem")
    pooling, bottom = stem_pooling(sizes)
    text += pooling
    for number, (channels, filters, outer, stride) in enumerate(sizes["block_sizes"], 1):
        name = f"blocks{number}"
        inner, top = block(name, bottom, filters, outer, stride)
        text += inner
        if stride != 1 or channels != outer:
            shortcut = name + "/shortcut"
            text += normalized(shortcut, name + "/shortcut_norm", bottom, outer, 1, stride)
            bottom = shortcut
        text += layer(name, "Eltwise", [bottom, top]) + relu(name)
        bottom = name
    text += layer(
        "mean", "Pooling", [bottom], settings="pooling_param { pool: AVE global_pooling: true }"
    )
    return text + inner_product("logits", "mean", sizes["classes"])

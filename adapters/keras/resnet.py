"""Residual networks as a functional Keras model.

Follows https://keras.io/guides/functional_api/ ("A toy ResNet model"). Padding has separate layers,
as in keras.applications: "same" with stride 2 would put all padding on one side.
https://keras.io/api/applications/resnet/
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: (batch, height, width, channels) -> logits (batch, classes)."""
    block = bottleneck if sizes["block"] == "bottleneck" else basic
    image = keras.Input((sizes["height"], sizes["width"], sizes["channels"]), name="image")
    x = normalised(image, sizes["width0"], 7, strides=2, name="stem")
    x = layers.Activation("relu")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, strides=2)(x)
    for number, (_, filters, outer, strides) in enumerate(sizes["block_sizes"], start=1):
        x = block(x, filters, outer, strides, f"blocks{number}")
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(sizes["classes"], name="logits")(x))


def normalised(x, filters, window, *, strides=1, name, norm=None):
    """Padding, convolution, batch norm."""
    if window > 1:
        x = layers.ZeroPadding2D(window // 2)(x)
    x = layers.Conv2D(filters, window, strides=strides, use_bias=False, name=name)(x)
    norm = norm or f"{name}_norm"
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)


def basic(x, filters, outer, strides, name):
    """Two 3x3 kernels next to the shortcut."""
    y = normalised(x, filters, 3, strides=strides, name=f"{name}_conv1", norm=f"{name}_norm1")
    y = layers.Activation("relu")(y)
    y = normalised(y, outer, 3, name=f"{name}_conv2", norm=f"{name}_norm2")
    return joined(x, y, outer, strides, name)


def bottleneck(x, filters, outer, strides, name):
    """1x1, 3x3 with the stride and 1x1, next to the shortcut."""
    y = normalised(x, filters, 1, name=f"{name}_conv1", norm=f"{name}_norm1")
    y = layers.Activation("relu")(y)
    y = normalised(y, filters, 3, strides=strides, name=f"{name}_conv2", norm=f"{name}_norm2")
    y = layers.Activation("relu")(y)
    y = normalised(y, outer, 1, name=f"{name}_conv3", norm=f"{name}_norm3")
    return joined(x, y, outer, strides, name)


def joined(x, y, outer, strides, name):
    """Add the shortcut, which has a projection where the shape changes."""
    if strides != 1 or x.shape[-1] != outer:
        x = normalised(x, outer, 1, strides=strides, name=f"{name}_shortcut")
    return layers.Activation("relu")(layers.Add()([x, y]))

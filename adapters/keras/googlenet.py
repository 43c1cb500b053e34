"""GoogLeNet as a functional Keras model.

Follows https://keras.io/guides/functional_api/ (2026-11). Padding has separate layers, as in
keras.applications: "same" with stride 2 would put less of it before the image than after it.
https://keras.io/api/applications/inceptionv3/
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: (batch, height, width, channels) -> logits (batch, classes)."""
    first, second, third = sizes["stem"]
    image = keras.Input((sizes["height"], sizes["width"], sizes["channels"]), name="image")
    x = normalised(layers.ZeroPadding2D(3)(image), first, 7, strides=2, name="stem1")
    x = max_pool_ceil(x, 3)
    x = normalised(x, second, 1, name="stem2")
    x = normalised(x, third, 3, name="stem3")
    for number, (_, filters, pool) in enumerate(sizes["module_sizes"], start=1):
        if pool:
            x = max_pool_ceil(x, pool)
        x = inception(x, filters, f"inceptions{number}")
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(sizes["classes"], name="logits")(x))


def normalised(x, filters, window, *, strides=1, name):
    """Convolution, batch norm, ReLU. With stride 1, the size of the image does not change."""
    padding = "same" if strides == 1 else "valid"
    conv = layers.Conv2D(
        filters, window, strides=strides, padding=padding, use_bias=False, name=f"{name}_conv"
    )
    norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")
    return layers.Activation("relu")(norm(conv(x)))


def max_pool_ceil(x, window):
    """Max pooling with stride 2 whose last window may extend beyond the image.

    After a ReLU, zeros are never larger than the values of a window.
    """
    rows, columns = ((size - window) % 2 for size in x.shape[1:3])
    return layers.MaxPooling2D(window, strides=2)(
        layers.ZeroPadding2D(((0, rows), (0, columns)))(x)
    )


def inception(x, filters, name):
    """Four branches, whose outputs are concatenated."""
    one, first2, second2, first3, second3, four = filters
    branch1 = normalised(x, one, 1, name=f"{name}_branch1")
    branch2 = normalised(x, first2, 1, name=f"{name}_reduce2")
    branch2 = normalised(branch2, second2, 3, name=f"{name}_branch2")
    branch3 = normalised(x, first3, 1, name=f"{name}_reduce3")
    branch3 = normalised(branch3, second3, 3, name=f"{name}_branch3")
    branch4 = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    branch4 = normalised(branch4, four, 1, name=f"{name}_branch4")
    return layers.Concatenate()([branch1, branch2, branch3, branch4])

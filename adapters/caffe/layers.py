"""Layers as text of a prototxt, and the blobs that they hold.

https://caffe.berkeleyvision.org/tutorial/layers.html
The name of a layer is the path of its parameters, so a canonical name determines the blob.
"""


def layer(name, kind, bottom, top=None, settings=""):
    """One layer; the name of its top is that of the layer, unless ``top`` is given."""
    bottoms = "".join(f' bottom: "{blob}"' for blob in bottom)
    tops = "".join(f' top: "{blob}"' for blob in top or [name])
    return f'layer {{ name: "{name}" type: "{kind}"{bottoms}{tops} {settings} }}\n'


def data(name, shape):
    """An input of the network."""
    dimensions = " ".join(f"dim: {size}" for size in shape)
    return layer(name, "Input", [], settings=f"input_param {{ shape {{ {dimensions} }} }}")


def inner_product(name, bottom, units):
    """(batch, ...) -> (batch, units); all axes but the batch are flattened."""
    settings = f"inner_product_param {{ num_output: {units} }}"
    return layer(name, "InnerProduct", [bottom], settings=settings)


def convolution(name, bottom, filters, window, stride=1, pad=0, bias=True):
    """(batch, channels, height, width) -> (batch, filters, height', width')."""
    settings = f"num_output: {filters} kernel_size: {window} stride: {stride} pad: {pad}"
    settings = f"convolution_param {{ {settings} bias_term: {str(bias).lower()} }}"
    return layer(name, "Convolution", [bottom], settings=settings)


def relu(bottom):
    """ReLU, in place."""
    return layer(bottom + "/relu", "ReLU", [bottom], [bottom])


def max_pooling(name, bottom, window, stride, pad=0):
    """Maximum over windows. Sizes are rounded up; OpenCV reads no setting to round them down."""
    settings = f"pool: MAX kernel_size: {window} stride: {stride} pad: {pad}"
    return layer(name, "Pooling", [bottom], settings=f"pooling_param {{ {settings} }}")


def batch_norm(name, bottom):
    """Normalisation and, in a separate layer, scale and bias; both in place."""
    settings = "batch_norm_param { eps: 1e-5 moving_average_fraction: 0.9 }"
    scaled = layer(name + "/scale", "Scale", [bottom], [bottom], "scale_param { bias_term: true }")
    return layer(name, "BatchNorm", [bottom], [bottom], settings) + scaled


def blob_of(name, state):
    """Map the canonical name of an array to the name of its layer and the number of its blob."""
    path, _, kind = name.rpartition("/")
    if path + "/mean" in state and kind in ("scale", "bias"):
        return path + "/scale", int(kind == "bias")
    return path, int(kind in ("bias", "variance"))

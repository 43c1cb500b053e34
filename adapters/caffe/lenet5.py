"""LeNet-5 as a prototxt, after "Training LeNet on MNIST with Caffe".

https://caffe.berkeleyvision.org/gathered/examples/mnist.html
"""

from levelfield.adapters.caffe.layers import convolution, inner_product, max_pooling, relu


def build(sizes):
    """image (batch, channels, height, width) -> logits (batch, classes)."""
    first, second = sizes["filters"]
    text = (
        convolution("conv1", "image", first, 5, pad=2)
        + relu("conv1")
        + max_pooling("pool1", "conv1", 2, 2)
        + convolution("conv2", "pool1", second, 5)
        + relu("conv2")
        + max_pooling("pool2", "conv2", 2, 2)
    )
    bottom = "pool2"
    for number, units in enumerate(sizes["hidden"], 1):
        name = f"hidden{number}"
        text += inner_product(name, bottom, units) + relu(name)
        bottom = name
    return text + inner_product("logits", bottom, sizes["classes"])

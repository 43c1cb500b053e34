"""Multilayer perceptron as a prototxt.

https://caffe.berkeleyvision.org/tutorial/layers/innerproduct.html
"""

from levelfield.adapters.caffe.layers import inner_product, relu


def build(sizes):
    """features (batch, features) -> logits (batch, classes)."""
    text, bottom = "", "features"
    for number, units in enumerate(sizes["hidden"], 1):
        name = f"hidden{number}"
        text += inner_product(name, bottom, units) + relu(name)
        bottom = name
    return text + inner_product("logits", bottom, sizes["classes"])

"""Multilayer perceptron, after "Build the Neural Network" of PyTorch's "Learn the Basics".

https://docs.pytorch.org/tutorials/beginner/basics/buildmodel_tutorial.html
The names of the layers come from an ordered dictionary, as in the documentation of nn.Sequential.
"""

from collections import OrderedDict

from torch import nn


def build(sizes):
    """(batch, features) -> logits (batch, classes)."""
    layers = OrderedDict()
    features = sizes["features"]
    for number, units in enumerate(sizes["hidden"], start=1):
        layers[f"hidden{number}"] = nn.Linear(features, units)
        layers[f"relu{number}"] = nn.ReLU()
        features = units
    layers["logits"] = nn.Linear(features, sizes["classes"])
    return nn.Sequential(layers)

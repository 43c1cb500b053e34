"""Multilayer perceptron, as in "CNTK 103: Part C".

https://cntk.azurewebsites.net/pythondocs/CNTK_103C_MNIST_MultiLayerPerceptron.html
"""

from cntk import relu
from cntk.layers import Dense, Sequential


def build(sizes):
    """Build the layers."""
    hidden = [
        Dense(units, activation=relu, name=f"hidden{number}")
        for number, units in enumerate(sizes["hidden"], 1)
    ]
    return Sequential([*hidden, Dense(sizes["classes"], name="logits")])

"""LeNet-5, as in "CNTK 103: Part D - Convolutional neural network with MNIST".

https://cntk.azurewebsites.net/pythondocs/CNTK_103D_MNIST_ConvolutionalNeuralNetwork.html
"""

from cntk import relu
from cntk.layers import Convolution2D, Dense, MaxPooling, Sequential


def build(sizes):
    """Build the layers."""
    first, second = sizes["filters"]
    layers = [
        Convolution2D((5, 5), first, activation=relu, pad=True, name="conv1"),
        MaxPooling((2, 2), strides=2),
        Convolution2D((5, 5), second, activation=relu, name="conv2"),
        MaxPooling((2, 2), strides=2),
    ]
    for number, units in enumerate(sizes["hidden"], 1):
        layers.append(Dense(units, activation=relu, name=f"hidden{number}"))
    return Sequential([*layers, Dense(sizes["classes"], name="logits")])

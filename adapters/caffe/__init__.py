"""Caffe: networks written as prototxt with a caffemodel of our own writing."""

import numpy as np

from levelfield.adapters.caffe.caffemodel import caffemodel
from levelfield.adapters.caffe.layers import blob_of, data
from levelfield.adapters.layout import CHANNELS_FIRST, Layout

LAYOUT = Layout({**CHANNELS_FIRST, ("in", "out"): ("out", "in")})
# Caffe keeps running statistics as sums. With this weight, 1 / (1 - moving_average_fraction), a new
# batch moves the quotient by one tenth from the first step on.
WEIGHT = 10.0


def Adapter(device, mode, threads, precision):
    """Return the adapter of a mode. Each mode needs an interpreter that can import its library."""
    if mode == "opencv":
        from levelfield.adapters.caffe.opencv import OpenCVAdapter

        return OpenCVAdapter(device, mode, threads, precision)
    from levelfield.adapters.caffe.pycaffe import PycaffeAdapter

    return PycaffeAdapter(device, mode, threads, precision)


def network(module, case):
    """The prototxt for inference: inputs and the model's layers."""
    inputs = [
        data(name, LAYOUT.to_native(case.sets[0][name], case.dimensions[name]).shape)
        for name in case.used
    ]
    return "".join(inputs) + module.build(case.sizes)


def weights(case):
    """The caffemodel: blobs of every layer in their order."""
    layers = {}
    for name, value in dict(case.parameters, **case.state).items():
        layer, number = blob_of(name, case.state)
        kept = WEIGHT * value if name in case.state else value
        layers.setdefault(layer, {})[number] = LAYOUT.to_native(kept, case.dimensions[name])
    for name in case.state:
        layers[blob_of(name, case.state)[0]][2] = np.array([WEIGHT], "float32")
    return caffemodel({name: [blobs[n] for n in sorted(blobs)] for name, blobs in layers.items()})

"""Writes a caffemodel: the fields of caffe.proto that hold parameters, in protobuf's wire format.

https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto (NetParameter.layer = 100,
LayerParameter.name = 1 and blobs = 7, BlobProto.data = 5 and shape = 7, BlobShape.dim = 1) and
https://protobuf.dev/programming-guides/encoding/
"""

import numpy as np


def varint(number):
    """Encode seven bits per byte, the lowest first."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number, content):
    """Encode a field of the wire type that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array):
    """Encode the shape and the values of an array, both packed."""
    shape = field(1, b"".join(varint(size) for size in array.shape))
    return field(5, array.astype("<f4").tobytes()) + field(7, shape)


def caffemodel(layers):
    """Return the file's content. ``layers``: name of a layer -> its arrays in order."""
    content = b""
    for name, arrays in layers.items():
        blobs = b"".join(field(7, blob(np.asarray(array))) for array in arrays)
        content += field(100, field(1, name.encode()) + blobs)
    return content

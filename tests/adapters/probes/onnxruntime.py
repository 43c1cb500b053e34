"""Which sides ONNX Runtime takes; run by its own interpreter, prints JSON."""

import json

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def recurrent():
    """An Elman network of one unit that counts its steps, with an open batch."""
    weights = [np.full((1, 1, 1), value, np.float32) for value in (1e-3, 1)]
    node = helper.make_node("RNN", ["x", "w", "r", "", "length"], ["", "y"], hidden_size=1)
    graph = helper.make_graph(
        [node],
        "lengths",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "batch", 1]),
            helper.make_tensor_value_info("length", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "batch", 1])],
        [
            numpy_helper.from_array(array, name)
            for array, name in zip(weights, ("w", "r"), strict=True)
        ],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def product():
    """x times 0.01."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    arrays = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [64]) for n in ("x", "y")]
    factor = numpy_helper.from_array(np.full(64, 0.01, np.float32), "factor")
    graph = helper.make_graph([node], "denormals", arrays[:1], arrays[1:], [factor])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def pooled():
    """Mean pooling of two values with a padding of one on each side."""
    about = {"kernel_shape": [2], "strides": [2], "pads": [1, 1]}
    node = helper.make_node("AveragePool", ["x"], ["y"], **about)
    arrays = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 2]) for n in ("x", "y")]
    graph = helper.make_graph([node], "pooling", arrays[:1], arrays[1:])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


INPUTS = {"x": np.ones((4, 2, 1), np.float32), "length": np.array([4, 1], np.int32)}
TINY = {"x": np.full(64, 1e-38, np.float32)}

if __name__ == "__main__":
    answers = {}
    counted = onnxruntime.InferenceSession(recurrent()).run(None, INPUTS)[0].ravel()
    answers["lengths-of-an-open-batch"] = "heeded" if counted[1] < 2e-3 else "ignored"
    small = onnxruntime.InferenceSession(product()).run(None, TINY)[0]
    answers["denormals"] = "kept" if small.sum() > 0 else "flushed"
    means = onnxruntime.InferenceSession(pooled()).run(None, {"x": np.ones((1, 1, 2), np.float32)})
    counted = means[0][0, 0, 0] == 0.5
    answers["mean-pooling-at-the-edge"] = "counted" if counted else "not counted"
    third = np.full(64, 1 / 3, np.float32)
    out = onnxruntime.InferenceSession(product()).run(None, {"x": third})[0]
    exact = np.abs(out / third / 0.01 - 1).max() < 1e-6
    answers["precision-of-float32"] = "float32" if exact else "less"
    print(json.dumps({"onnxruntime": answers}))

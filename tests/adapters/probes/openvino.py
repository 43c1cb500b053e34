"""Which sides OpenVINO takes; run by its own interpreter, prints JSON."""

import json

import numpy as np
import openvino
from openvino import opset15 as ops
from openvino.properties import hint

core = openvino.Core()
SINGLE = {hint.inference_precision: openvino.Type.f32}


def recurrent():
    """An Elman network of one unit that counts its steps, with an open batch."""
    x = ops.parameter([-1, 4, 1], np.float32)
    start = ops.parameter([-1, 1, 1], np.float32)
    length = ops.parameter([-1], np.int32)
    weights = [np.full((1, 1, 1), value, np.float32) for value in (1e-3, 1)]
    bias = np.zeros((1, 1), np.float32)
    out = ops.rnn_sequence(x, start, length, *weights, bias, 1, "forward")
    return openvino.Model([out.output(1)], [x, start, length])


def product():
    """x times 0.01."""
    x = ops.parameter([64], np.float32)
    return openvino.Model([ops.multiply(x, np.full(64, 0.01, np.float32))], [x])


answers = {}
inputs = [np.ones((2, 4, 1), np.float32), np.zeros((2, 1, 1), np.float32)]
compiled = core.compile_model(recurrent(), "CPU", SINGLE)
counted = compiled([*inputs, np.array([4, 1], np.int32)])[0].ravel()
answers["lengths-of-an-open-batch"] = "heeded" if counted[1] < 2e-3 else "ignored"
small = core.compile_model(product(), "CPU", SINGLE)([np.full(64, 1e-38, np.float32)])[0]
answers["denormals"] = "kept" if small.sum() > 0 else "flushed"
shorter = core.get_property("CPU", hint.inference_precision) == openvino.Type.bf16
able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
words = "bfloat16 where the processor has it" if shorter == able else "float32"
answers["precision-of-float32"] = words
print(json.dumps({"openvino": answers}))

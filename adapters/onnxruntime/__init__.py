"""ONNX Runtime: graphs exported from the definitions, on the CPU execution provider."""

import os
import tempfile

# Since 1.29 the Linux binaries collect usage data in a database and send it, unless this is set.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import quantize_dynamic

from levelfield.adapters.base import Unsupported
from levelfield.adapters.on_exported import OnExported

PROVIDERS = ["CPUExecutionProvider"]
# Operators with which dynamic quantisation replaces products.
QUANTIZED = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"}
# Types of operators by what their time goes to; those of any other type compute.
PRODUCTS = ("MatMul", "Gemm", "Attention", "LSTM", "GRU", "RNN", "Einsum")
LAYOUTS = ("Transpose", "Reorder", "Pad")
COPIES = ("Concat", "Split", "Slice", "Expand", "Identity", "Tile", "Memcpy", "ScatterND")
DISPATCHED = ("Shape", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Constant")


def quantized(proto):
    """Quantise weights and activations to 8 bits by onnxruntime.quantization, dynamic."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "int8.onnx")
        quantize_dynamic(proto, path)
        model = onnx.load(path)
    if QUANTIZED.isdisjoint(node.op_type for node in model.graph.node):
        raise Unsupported("dynamic quantisation leaves this model as it is")
    return model


def category_of(kind):
    """Return what the time of an operator of this type goes to."""
    if kind in DISPATCHED:
        return "dispatch"
    if "Conv" in kind:
        return "convolution"
    words = {"product": PRODUCTS, "layout": LAYOUTS, "copy": COPIES}
    kinds = [one for one, names in words.items() if any(name in kind for name in names)]
    return kinds[0] if kinds else "computation"


class Adapter(OnExported):
    """One session for inference and one for decoding.

    The ``tuned`` mode follows https://onnxruntime.ai/docs/performance/tune-performance/.
    """

    no_gpu = "only the CPU execution provider is built in"

    def configure(self):
        """Set the options of the sessions."""
        self.tuned = self.mode == "tuned"
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = self.threads
        self.options.inter_op_num_threads = 1
        if self.tuned:
            self.options.add_session_config_entry("session.set_denormal_as_zero", "1")

    def describe(self):
        """Describe the run. The runtime only reports the thread count of the options."""
        return {
            "version": onnxruntime.__version__,
            "threads": self.options.intra_op_num_threads,
            "provider": PROVIDERS[0],
        }

    def place(self, name, value):
        """Place the array; in ``tuned`` mode as a value of the runtime."""
        return self.value(super().place(name, value))

    def value(self, array):
        """Return the array; in ``tuned`` mode a value of the runtime."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(array) if self.tuned else array

    def compiled(self, phase):
        """Make the session, which optimises the graph and packs the weights."""
        if phase != "inference" and self.precision == "int8":
            raise Unsupported("a quantised model decodes tokens of its own")
        proto = self.protos[phase]
        if self.precision == "int8":
            proto = quantized(proto)
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), self.options, providers=PROVIDERS
        )
        if session.get_providers() != PROVIDERS:
            raise Unsupported(f"the session runs on {session.get_providers()}")
        return session, [output.name for output in session.get_outputs()]

    def call(self, program, inputs):
        """Run the session."""
        session, names = program
        run = session.run_with_ort_values if self.tuned else session.run
        return dict(zip(names, run(names, inputs), strict=True))

    def to_numpy(self, value):
        """Convert to NumPy, also from values of the runtime."""
        return value if isinstance(value, np.ndarray) else value.numpy()

    def profile(self, run, folder):
        """Run the steps in sessions that profile themselves, the first time to warm up.

        https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html, read
        2026-11-28
        """
        # Imported here because the import of an adapter is timed.
        from levelfield.adapters.profiles import chrome_events, compressed, operators

        phases, self.programs = list(self.programs), {}
        self.options.enable_profiling = True
        self.options.profile_file_prefix = os.path.join(folder, "session")
        for phase in phases:
            self.compile(phase)
        run()
        run()
        (path,) = [self.programs[phase][0].end_profiling() for phase in phases]
        self.options.enable_profiling = False
        events = chrome_events(path)
        runs = [event["ts"] for event in events if event["name"] == "model_run"]
        begin = runs[len(runs) // 2]  # that of the first step of the second time
        for event in events:
            if event["cat"] == "Node":
                event["within"] = event["name"].replace("_kernel_time", "")
                event["name"] = event["args"]["op_name"]
                event["category"] = category_of(event["name"])
        trace = compressed(path, folder)
        return {
            "profiler": "ONNX Runtime's profiler",
            "trace": trace,
            "operators": operators(events, lambda name, callers: "dispatch", begin),
        }

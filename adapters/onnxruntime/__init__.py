"""ONNX Runtime: graphs exported from the definitions, on the CPU execution provider."""

import os
import tempfile

# Since 1.29 the Linux binaries collect usage data in a database and send it, unless this is set.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import quantize_dynamic

import reference
from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported
from reference.export import export_generation, export_inference
from reference.layers_onnx import IMAGES

PROVIDERS = ["CPUExecutionProvider"]
LAYOUT = Layout(IMAGES)


# Operators with which dynamic quantisation replaces products.
QUANTIZED = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"}


def quantized(proto):
    """Quantise weights and activations to 8 bits by onnxruntime.quantization, dynamic."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "int8.onnx")
        quantize_dynamic(proto, path)
        found = onnx.load(path)
    if QUANTIZED.isdisjoint(node.op_type for node in found.graph.node):
        raise Unsupported("dynamic quantisation leaves this model as it is")
    return found


class Adapter(Base):
    """One session for inference and one for decoding; the latter's cache is input and output.

    The ``tuned`` mode follows https://onnxruntime.ai/docs/performance/tune-performance/.
    """

    layout = LAYOUT

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("only the CPU execution provider is built in")
        self.tuned, self.precision = mode == "tuned", precision
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
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

    def load(self, module, case):
        """Export the graphs. A session is made when its phase is known."""
        model = reference.get(case.model)
        self.begin(module, case)
        self.sessions = {}
        self.exported = export_inference(
            model, case.sizes, case.parameters, case.state, batch=case.batch
        )
        if case.generation:
            self.decoder = export_generation(model, case.sizes, case.parameters, batch=case.batch)

    def place(self, name, value):
        """Place the array; in ``tuned`` mode as a value of the runtime."""
        return self._value(super().place(name, value))

    def _value(self, array):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array) if self.tuned else array

    def compile(self, phase):
        """Make the session, which optimises the graph and packs the weights."""
        if phase == "generation" and self.precision == "int8":
            raise Unsupported("a quantised model decodes tokens of its own")
        proto = (self.decoder if phase == "generation" else self.exported).proto
        if self.precision == "int8":
            proto = quantized(proto)
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), self.options, providers=PROVIDERS
        )
        if session.get_providers() != PROVIDERS:
            raise Unsupported(f"the session runs on {session.get_providers()}")
        self.sessions[phase] = session, [each.name for each in session.get_outputs()]
        return True

    def _run(self, phase, inputs):
        if phase not in self.sessions:
            self.compile(phase)
        session, names = self.sessions[phase]
        if self.tuned:
            found = session.run_with_ort_values(names, inputs)
        else:
            found = session.run(names, inputs)
        return dict(zip(names, found, strict=True))

    def infer(self):
        """Run the session once."""
        return self._run("inference", self.next(self.used))

    def generate(self, count):
        """Run the prompt with empty keys and values, then one token after the other."""
        tokens = self.next(self.sets)[self.case.generation["prompt"]]
        empty = self._value(np.zeros((self.case.batch, 0, self.case.sizes["width"]), np.float32))
        cache = {each.name: empty for each in self.decoder.proto.graph.input}
        found = []
        for _ in range(count):
            run = self._run("generation", dict(cache, tokens=tokens))
            token = run.pop("token")
            tokens = self._column(token)
            found.append(token)
            cache = {name.replace("present", "past"): value for name, value in run.items()}
        return {"tokens": np.stack([self.to_numpy(each) for each in found], 1)}

    def _column(self, token):
        return self._value(token.numpy()[:, None]) if self.tuned else token[:, None]

    def parameters(self):
        """Return the parameters of the exported file, before any quantisation."""
        held = self.exported.parameters()  # in canonical axes, while read() expects native axes
        return self.by_kind({name: Base.place(self, name, value) for name, value in held.items()})

    def wait(self, handle):
        """Do nothing: a run returns when it is done."""

    def to_numpy(self, value):
        """Convert to NumPy, also from values of the runtime."""
        return value if isinstance(value, np.ndarray) else value.numpy()

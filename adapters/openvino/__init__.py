"""OpenVINO: graphs exported from the definitions, on the CPU plugin."""

import os

# The import of OpenVINO sends usage data and writes a client ID to the home folder, unless it runs
# in continuous integration. The command for opting out would write to the home folder, too.
os.environ["CI"] = "true"

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

import reference
from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported
from reference.export import export_generation, export_inference
from reference.layers_onnx import IMAGES

LAYOUT = Layout(IMAGES)


class Adapter(Base):
    """A compiled model for inference, and one with the cache as input and output for decoding.

    The ``tuned`` mode follows
    https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference.html.
    By default the plugin would compute in bfloat16 where the processor supports it.
    """

    layout = LAYOUT

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("only the CPU plugin is looked at")
        self.tuned, self.core = mode == "tuned", openvino.Core()
        self.settings = {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: threads,
        }
        if self.tuned:
            self.settings[properties.intel_cpu.denormals_optimization] = True

    def describe(self):
        """Describe the run by the present settings of the plugin."""
        self.core.set_property("CPU", self.settings)
        return {
            "version": openvino.__version__,
            "threads": self.core.get_property("CPU", properties.inference_num_threads),
            "precision": self.core.get_property("CPU", hint.inference_precision).to_string(),
        }

    def load(self, module, case):
        """Export and read the graphs. They are compiled when the phase is known."""
        model = reference.get(case.model)
        self.begin(module, case)
        self.requests = {}
        self.exported = export_inference(
            model, case.sizes, case.parameters, case.state, batch=case.batch
        )
        if case.generation:
            self.decoder = export_generation(model, case.sizes, case.parameters, batch=case.batch)

    def compile(self, phase):
        """Call ``compile_model`` for the CPU and check that it computes in float32."""
        proto = (self.decoder if phase == "generation" else self.exported).proto
        graph = self.core.read_model(proto.SerializeToString())
        compiled = self.core.compile_model(graph, "CPU", self.settings)
        if compiled.get_property(hint.inference_precision) != openvino.Type.f32:
            raise Unsupported("the plugin does not compute in float32 here")
        names = [each.name for each in proto.graph.output]
        self.requests[phase] = compiled.create_infer_request(), names
        return True

    def _run(self, phase, inputs):
        if phase not in self.requests:
            self.compile(phase)
        request, names = self.requests[phase]
        found = request.infer(inputs, share_inputs=self.tuned, share_outputs=self.tuned)
        return {name: found[name] for name in names}

    def infer(self):
        """Run one request."""
        return self._run("inference", self.next(self.used))

    def generate(self, count):
        """Run the prompt with empty keys and values, then one token after the other."""
        tokens = self.next(self.sets)[self.case.generation["prompt"]]
        empty = np.zeros((self.case.batch, 0, self.case.sizes["width"]), np.float32)
        cache = {each.name: empty for each in self.decoder.proto.graph.input}
        found = []
        for _ in range(count):
            run = self._run("generation", dict(cache, tokens=tokens))
            # The next request overwrites a shared output.
            token = np.array(run.pop("token"))
            tokens = token[:, None]
            found.append(token)
            cache = {name.replace("present", "past"): value for name, value in run.items()}
        return {"tokens": np.stack(found, 1)}

    def parameters(self):
        """Return the parameters of the exported file."""
        held = self.exported.parameters()  # in canonical axes, while read() expects native axes
        return self.by_kind({name: Base.place(self, name, value) for name, value in held.items()})

    def wait(self, handle):
        """Do nothing: a request returns when it is done."""

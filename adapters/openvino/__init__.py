"""OpenVINO: graphs exported from the definitions, on the CPU plugin."""

import os

# The import of OpenVINO sends usage data and writes a client ID to the home folder, unless it runs
# in continuous integration. The command for opting out would write to the home folder, too.
os.environ["CI"] = "true"

import openvino
from openvino import properties
from openvino.properties import hint

from levelfield.adapters.base import Unsupported
from levelfield.adapters.on_exported import OnExported


class Adapter(OnExported):
    """A compiled model for inference, and one for decoding.

    The ``tuned`` mode follows
    https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference.html.
    By default the plugin would compute in bfloat16 where the processor supports it.
    """

    no_gpu = "only the CPU plugin is looked at"

    def configure(self):
        """Set the properties of the plugin."""
        self.tuned, self.core = self.mode == "tuned", openvino.Core()
        self.settings = {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: self.threads,
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

    def compiled(self, phase):
        """Call ``compile_model`` for the CPU and check that it computes in float32."""
        graph = self.core.read_model(self.protos[phase].SerializeToString())
        compiled = self.core.compile_model(graph, "CPU", self.settings)
        if compiled.get_property(hint.inference_precision) != openvino.Type.f32:
            raise Unsupported("the plugin does not compute in float32 here")
        names = [output.name for output in self.protos[phase].graph.output]
        return compiled.create_infer_request(), names

    def call(self, program, inputs):
        """Run one request. The next request overwrites shared outputs."""
        request, names = program
        results = request.infer(inputs, share_inputs=self.tuned, share_outputs=self.tuned)
        return {name: results[name] for name in names}

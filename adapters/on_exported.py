"""The work that adapters of runtimes share whose graphs are exported from the definitions.

For ONNX Runtime and OpenVINO. Decoding has a graph of its own, with the cache as input and output.
"""

import numpy as np

from levelfield import reference
from levelfield.adapters.base import Adapter
from levelfield.adapters.layout import Layout
from levelfield.reference.export import export_encoding, export_generation, export_inference
from levelfield.reference.layers_onnx import IMAGES

LAYOUT = Layout(IMAGES)


class OnExported(Adapter):
    """An adapter of exported graphs, each compiled when its phase is known.

    A subclass has ``compiled(phase)`` -> the runtime's program for ``self.protos[phase]``, and
    ``call(program, inputs)`` -> outputs by name.
    """

    layout = LAYOUT

    def load(self, module, case):
        """Export the graphs."""
        self.begin(module, case)
        model, self.programs = reference.get(case.model), {}
        self.exported = export_inference(
            model, case.sizes, case.parameters, case.state, batch=case.batch
        )
        self.protos = {"inference": self.exported.proto}
        if case.generation:
            decoder = export_generation(model, case.sizes, case.parameters, batch=case.batch)
            self.protos["generation"] = decoder.proto
            self.start = model.generation.start
            if model.generation.encode is not None:
                encoder = export_encoding(model, case.sizes, case.parameters, batch=case.batch)
                self.protos["encoding"] = encoder.proto

    def compile(self, phase):
        """Make the runtime's program; that of an encoder with the one that decodes."""
        self.programs[phase] = self.compiled(phase)
        if phase == "generation" and "encoding" in self.protos:
            self.programs["encoding"] = self.compiled("encoding")
        return True

    def run(self, phase, inputs):
        """Run the program of a phase once."""
        if phase not in self.programs:
            self.compile(phase)
        return self.call(self.programs[phase], inputs)

    def infer(self):
        """Run the graph once."""
        return self.run("inference", self.next(self.used))

    def generate(self, count):
        """Run the prompt with empty keys and values, then one token after the other.

        An encoder reads the prompt once; the first token is then the start.
        """
        tokens, memory, batch = self.next(self.prompts), {}, self.case.batch
        if "encoding" in self.protos:
            memory = self.run("encoding", {self.case.generation["prompt"]: tokens})
            tokens = self.value(np.full((batch, 1), self.start, np.int32))
        empty = self.value(np.zeros((batch, 0, self.case.sizes["width"]), np.float32))
        names = (value.name for value in self.protos["generation"].graph.input)
        cache = {name: empty for name in names if name.startswith("past")}
        chosen = []
        for _ in range(count):
            run = self.run("generation", dict(memory, **cache, tokens=tokens))
            token = self.to_numpy(run.pop("token"))
            tokens = self.value(token[:, None])
            chosen.append(token)
            cache = {name.replace("present", "past"): value for name, value in run.items()}
        return {"tokens": np.stack(chosen, 1)}

    def value(self, array):
        """Turn a NumPy array into an input of the runtime. Timed in a step that decodes."""
        return array

    def parameters(self):
        """Return the parameters of the exported file, before any quantisation."""
        held = self.exported.parameters()  # in canonical axes, while read() expects native axes
        return self.by_kind({n: Adapter.place(self, n, value) for n, value in held.items()})

    def wait(self, handle):
        """Do nothing: a run returns when it is done."""

"""tinygrad: lazy tensors, kernels compiled by clang, TinyJit around a step."""

import os
import shutil
from importlib.metadata import version

import numpy as np

from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported

# tinygrad calls what CC names, with options that only clang knows.
VERSIONS = ("clang", *(f"clang-{number}" for number in range(24, 10, -1)))
CLANG = next(filter(None, map(shutil.which, VERSIONS)), None)
if CLANG and "clang" not in os.environ.get("CC", ""):
    os.environ["CC"] = CLANG

from tinygrad import Context, Device, Tensor, TinyJit  # noqa: E402
from tinygrad.nn import optim, state  # noqa: E402

LAYOUT = Layout(
    {
        ("in", "out"): ("out", "in"),
        ("height", "width", "in", "out"): ("out", "in", "height", "width"),
        ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
        ("height", "width", "channel"): ("channel", "height", "width"),
    }
)
LOSSES = {"softmax_cross_entropy": Tensor.sparse_categorical_crossentropy}


def make_optimizer(constants, parameters):
    """tinygrad.nn.optim."""
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        beta1, beta2 = constants["beta1"], constants["beta2"]
        return optim.Adam(parameters, rate, beta1, beta2, constants["epsilon"])
    return optim.SGD(parameters, rate, constants.get("momentum", 0.0))


def canonical_name(path):
    """ "hidden.0.weight" -> "hidden1/kernel"."""
    name = ""
    for part in path.replace("weight", "kernel").split("."):
        name += str(int(part) + 1) if part.isdigit() else "/" + part
    return name[1:]


class Adapter(Base):
    """``tinygrad:jit`` and ``tinygrad:lazy``.

    https://docs.tinygrad.org/mnist/ and https://docs.tinygrad.org/quickstart/
    """

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("only tinygrad's CPU device is looked at")
        if "clang" not in os.environ.get("CC", ""):
            raise Unsupported("tinygrad compiles with clang, and none is here: apt install clang")
        self.jitted, self.traced = mode == "jit", 0

    def describe(self):
        """The affinity decides how many threads there are."""
        return {
            "version": version("tinygrad"),
            "numpy": np.__version__,
            "threads": None,
            "device": Device.DEFAULT.lower(),
            "compiler": os.path.basename(os.environ["CC"]),
        }

    def compilations(self):
        """Steps scheduled anew by TinyJit: the first two calls of each function."""
        return self.traced if self.jitted else None

    def load(self, module, case):
        """Parameters are loaded into the built model under its own names."""
        self.case, self.cursor = case, 0
        self.model = module.build(case.sizes)
        held = state.get_state_dict(self.model)
        self.named = {canonical_name(path): tensor for path, tensor in held.items()}
        values = {
            path: self._place(canonical_name(path), case.parameters[canonical_name(path)])
            for path in held
        }
        state.load_state_dict(self.model, values, verbose=False)
        self.optimizer = make_optimizer(case.optimizer, [*self.named.values()])
        self.sets = [{n: self._place(n, v) for n, v in inputs.items()} for inputs in case.sets]
        ((self.loss_name, self.objective),) = case.objective_functions(module, LOSSES).items()
        self.forward, self.step = self._forward, self._step
        if self.jitted:
            self.forward, self.step = TinyJit(self._forward), TinyJit(self._step)

    def _place(self, name, value):
        return Tensor(LAYOUT.to_native(value, self.case.dimensions[name])).realize()

    def _next(self):
        inputs = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return inputs

    def _forward(self, **inputs):
        self.traced += 1
        found = self.case.named_outputs(self.model(**inputs))
        Tensor.realize(*found.values())
        return found

    def _step(self, **inputs):
        self.traced += 1
        with Context(TRAINING=1):
            self.optimizer.zero_grad()
            loss = self.objective(self.model, inputs)
            loss.backward()
            loss.realize(*self.optimizer.schedule_step())
        return loss

    def infer(self):
        """Forward pass."""
        inputs = self._next()
        return self.forward(**{name: inputs[name] for name in self.case.used})

    def train_step(self):
        """Forward, backward, update."""
        return {self.loss_name: self.step(**self._next())}

    def gradients(self):
        """As in a step, without TinyJit."""
        self.optimizer.zero_grad()
        loss = self.objective(self.model, self._next())
        loss.backward()
        handle = {"gradient/" + name: tensor.grad for name, tensor in self.named.items()}
        Tensor.realize(loss, *handle.values())
        return dict(handle, **{self.loss_name: loss})

    def parameters(self):
        """The model's tensors."""
        return {"parameter/" + name: tensor for name, tensor in self.named.items()}

    def wait(self, handle):
        """Waits for the device, which is asynchronous."""
        Device[Device.DEFAULT].synchronize()

    def read(self, handle):
        """Names say what an array is; its dimensions are those of the parameter or output."""
        arrays = {}
        for name, value in handle.items():
            kind, _, rest = name.partition("/")
            known = rest if kind in ("gradient", "parameter") else name
            dimensions = self.case.dimensions.get(known)
            array = value.numpy()
            arrays[name] = LAYOUT.to_canonical(array, dimensions) if dimensions else array
        return arrays

"""tinygrad: lazy tensors, kernels compiled by clang, TinyJit around a step."""

import os
import shutil
from importlib.metadata import version

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import Unsupported, canonical_name
from levelfield.adapters.layout import CHANNELS_FIRST, Layout

# tinygrad calls the compiler that CC names, with options that only clang supports.
VERSIONS = ("clang", *(f"clang-{number}" for number in range(24, 10, -1)))
CLANG = next(filter(None, map(shutil.which, VERSIONS)), None)
if CLANG and "clang" not in os.environ.get("CC", ""):
    os.environ["CC"] = CLANG

from tinygrad import Context, Device, Tensor, TinyJit  # noqa: E402
from tinygrad.nn import optim, state  # noqa: E402

LAYOUT = Layout({**CHANNELS_FIRST, ("in", "out"): ("out", "in")})
LOSSES = {"softmax_cross_entropy": Tensor.sparse_categorical_crossentropy}


def make_optimizer(constants, parameters):
    """Make an optimiser of tinygrad.nn.optim."""
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        beta1, beta2 = constants["beta1"], constants["beta2"]
        return optim.Adam(parameters, rate, beta1, beta2, constants["epsilon"])
    return optim.SGD(parameters, rate, constants.get("momentum", 0.0))


class Adapter(Base):
    """``tinygrad:jit`` and ``tinygrad:lazy``.

    https://docs.tinygrad.org/mnist/ and https://docs.tinygrad.org/quickstart/
    """

    layout = LAYOUT
    no_gpu = "only tinygrad's CPU device is looked at"

    def configure(self):
        """Require the compiler; the affinity determines the number of threads."""
        if "clang" not in os.environ.get("CC", ""):
            raise Unsupported("tinygrad compiles with clang, and none is here: apt install clang")
        self.jitted, self.traced = self.mode == "jit", 0

    def describe(self):
        """Describe the run. The affinity determines the number of threads."""
        return {
            "version": version("tinygrad"),
            "threads": None,
            "device": Device.DEFAULT.lower(),
            "compiler": os.path.basename(os.environ["CC"]),
        }

    def compilations(self):
        """Count the steps that TinyJit schedules again: the first two calls of each function."""
        return self.traced if self.jitted else None

    def load(self, module, case):
        """Build the model and load the parameters into it under its own names."""
        self.begin(module, case, LOSSES)
        self.model = module.build(case.sizes)
        paths = {
            canonical_name(path.replace("weight", "kernel").split(".")): path
            for path in state.get_state_dict(self.model)
        }
        held = state.get_state_dict(self.model)
        self.named = {name: held[path] for name, path in paths.items()}
        values = {paths[name]: Tensor(value).realize() for name, value in self.given(self.named)}
        state.load_state_dict(self.model, values, verbose=False)
        self.optimizer = make_optimizer(case.optimizer, [*self.named.values()])
        self.forward, self.step = self._forward, self._step
        if self.jitted:
            self.forward, self.step = TinyJit(self._forward), TinyJit(self._step)

    def place(self, name, value):
        """Make a tensor and compute it."""
        return Tensor(super().place(name, value)).realize()

    def _forward(self, **inputs):
        self.traced += 1
        outputs = self.case.named_outputs(self.model(**inputs))
        Tensor.realize(*outputs.values())
        return outputs

    def _step(self, **inputs):
        self.traced += 1
        with Context(TRAINING=1):
            self.optimizer.zero_grad()
            loss = self.objective(self.model, inputs)
            loss.backward()
            loss.realize(*self.optimizer.schedule_step())
        return loss

    def infer(self):
        """Run the forward pass."""
        return self.forward(**self.next(self.used))

    def train_step(self):
        """Run forward, backward and update."""
        return {self.loss_name: self.step(**self.next(self.sets))}

    def gradients(self):
        """Compute losses and gradients as in a step, without TinyJit."""
        self.optimizer.zero_grad()
        loss = self.objective(self.model, self.next(self.sets))
        loss.backward()
        handle = {"gradient/" + name: tensor.grad for name, tensor in self.named.items()}
        Tensor.realize(loss, *handle.values())
        return dict(handle, **{self.loss_name: loss})

    def parameters(self):
        """Return the model's tensors."""
        return self.by_kind(self.named)

    def wait(self, handle):
        """Wait for the device, which is asynchronous."""
        Device[Device.DEFAULT].synchronize()

    def to_numpy(self, value):
        """Compute the tensor and convert it to NumPy."""
        return value.numpy()

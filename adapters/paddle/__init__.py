"""PaddlePaddle: paddle.nn layers, paddle.optimizer, eager or under paddle.jit.to_static."""

import numpy as np
import paddle
from paddle.nn import functional as F

from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported

LAYOUT = Layout(
    {
        ("height", "width", "in", "out"): ("out", "in", "height", "width"),
        ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
        ("height", "width", "channel"): ("channel", "height", "width"),
    }
)
LOSSES = {"softmax_cross_entropy": F.cross_entropy}


def make_optimizer(constants, parameters):
    """paddle.optimizer."""
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        return paddle.optimizer.Adam(
            rate,
            beta1=constants["beta1"],
            beta2=constants["beta2"],
            epsilon=constants["epsilon"],
            parameters=parameters,
        )
    if constants["name"] == "momentum":
        return paddle.optimizer.Momentum(rate, constants["momentum"], parameters=parameters)
    return paddle.optimizer.SGD(rate, parameters=parameters)


def canonical_name(path):
    """ "hidden.0.weight" -> "hidden1/kernel"."""
    name = ""
    for part in path.replace("weight", "kernel").split("."):
        name += str(int(part) + 1) if part.isdigit() else "/" + part
    return name[1:]


class Adapter(Base):
    """``paddle:eager`` and ``paddle:static``.

    https://www.paddlepaddle.org.cn/documentation/docs/en/guides/jit/index_en.html
    """

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("its GPU packages come from an index of their own")
        self.static = mode == "static"
        paddle.set_device("cpu")

    def describe(self):
        """Paddle takes its threads from OMP_NUM_THREADS and cannot read them back."""
        return {"version": paddle.__version__, "numpy": np.__version__, "threads": None}

    def load(self, module, case):
        """Parameters are set in the built layer under its own names."""
        self.case, self.cursor = case, 0
        self.model = module.build(case.sizes)
        self.named = {canonical_name(path): p for path, p in self.model.named_parameters()}
        for name, value in case.parameters.items():
            self.named[name].set_value(LAYOUT.to_native(value, case.dimensions[name]))
        self.optimizer = make_optimizer(case.optimizer, self.model.parameters())
        self.sets = [{n: self._place(n, v) for n, v in inputs.items()} for inputs in case.sets]
        self.forward = paddle.jit.to_static(self.model) if self.static else self.model
        ((self.loss_name, self.objective),) = case.objective_functions(module, LOSSES).items()

    def _place(self, name, value):
        value = LAYOUT.to_native(value, self.case.dimensions[name])
        # Class labels are int64 throughout Paddle.
        return paddle.to_tensor(value.astype("int64") if value.dtype.kind == "i" else value)

    def _next(self):
        inputs = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return inputs

    def infer(self):
        """Forward pass in evaluation mode."""
        inputs = self._next()
        self.model.eval()
        with paddle.no_grad():
            found = self.forward(**{name: inputs[name] for name in self.case.used})
        return self.case.named_outputs(found)

    def train_step(self):
        """Forward, backward, update."""
        self.model.train()
        loss = self.objective(self.forward, self._next())
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        return {self.loss_name: loss}

    def gradients(self):
        """As in a step."""
        self.model.train()
        loss = self.objective(self.forward, self._next())
        loss.backward()
        handle = {"gradient/" + name: p.grad.clone() for name, p in self.named.items()}
        self.optimizer.clear_grad()
        return dict(handle, **{self.loss_name: loss})

    def parameters(self):
        """Copies."""
        return {"parameter/" + name: p.detach().clone() for name, p in self.named.items()}

    def wait(self, handle):
        """On the CPU operations return when they are done; paddle.device.synchronize has no CPU."""

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

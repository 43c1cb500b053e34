"""PaddlePaddle: paddle.nn layers, paddle.optimizer, eager or under paddle.jit.to_static."""

import paddle
from paddle.nn import functional as F

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import canonical_name
from levelfield.adapters.layout import CHANNELS_FIRST, Layout

LAYOUT = Layout(CHANNELS_FIRST)
LOSSES = {"softmax_cross_entropy": F.cross_entropy}


def make_optimizer(constants, parameters):
    """Make an optimiser of paddle.optimizer."""
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


class Adapter(Base):
    """``paddle:eager`` and ``paddle:static``.

    https://www.paddlepaddle.org.cn/documentation/docs/en/guides/jit/index_en.html
    """

    layout = LAYOUT
    no_gpu = "its GPU packages come from an index of their own"

    def configure(self):
        """Set the device; threads come from OMP_NUM_THREADS."""
        paddle.set_device("cpu")

    def describe(self):
        """Describe the run. Threads come from OMP_NUM_THREADS and cannot be read back."""
        return {"version": paddle.__version__, "threads": None}

    def load(self, module, case):
        """Build the layer and set its parameters under its own names."""
        self.begin(module, case, LOSSES)
        self.model = module.build(case.sizes)
        self.named = {
            canonical_name(path.replace("weight", "kernel").split(".")): parameter
            for path, parameter in self.model.named_parameters()
        }
        for name, value in self.given(self.named):
            self.named[name].set_value(value)
        self.optimizer = make_optimizer(case.optimizer, self.model.parameters())
        self.forward = paddle.jit.to_static(self.model) if self.mode == "static" else self.model

    def place(self, name, value):
        """Make a tensor."""
        value = super().place(name, value)
        # Class labels are int64 throughout Paddle.
        return paddle.to_tensor(value.astype("int64") if value.dtype.kind == "i" else value)

    def infer(self):
        """Run the forward pass in evaluation mode."""
        self.model.eval()
        with paddle.no_grad():
            return self.case.named_outputs(self.forward(**self.next(self.used)))

    def train_step(self):
        """Run forward, backward and update."""
        self.model.train()
        loss = self.objective(self.forward, self.next(self.sets))
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        return {self.loss_name: loss}

    def gradients(self):
        """Compute losses and gradients as in a step."""
        self.model.train()
        loss = self.objective(self.forward, self.next(self.sets))
        loss.backward()
        handle = {"gradient/" + name: p.grad.clone() for name, p in self.named.items()}
        self.optimizer.clear_grad()
        return dict(handle, **{self.loss_name: loss})

    def parameters(self):
        """Return copies of the parameters."""
        return self.by_kind({name: p.detach().clone() for name, p in self.named.items()})

    def wait(self, handle):
        """Do nothing: on the CPU, operations return when they are done.

        paddle.device.synchronize does not support the CPU.
        """

    def to_numpy(self, value):
        """Return a copy."""
        return value.numpy()

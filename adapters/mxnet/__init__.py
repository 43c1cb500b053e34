"""Apache MXNet: Gluon blocks, imperative or hybridized."""

import mxnet as mx
from mxnet import autograd, gluon, nd

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import canonical_name, epsilon_hat
from levelfield.adapters.layout import CHANNELS_FIRST, Layout

LAYOUT = Layout({**CHANNELS_FIRST, ("in", "out"): ("out", "in")})

# Canonical names of the parameters of a block; in all other blocks, "weight" is the kernel.
KINDS = {
    "gamma": "scale",
    "beta": "bias",
    "running_mean": "mean",
    "running_var": "variance",
    "l0_i2h_weight": "kernel",
    "l0_h2h_weight": "recurrent_kernel",
    "l0_i2h_bias": "bias",
    "l0_h2h_bias": "recurrent_bias",
    "weight": "kernel",
}
STATISTICS = ("mean", "variance")


class EvidenceLowerBound(gluon.HybridBlock):
    """The negative bound of every example, after the autoencoder examples of GluonCV and MXNet."""

    def __init__(self):
        super().__init__()
        self.reconstruction = gluon.loss.SigmoidBCELoss()

    def hybrid_forward(self, F, logits, mean, log_variance, target):
        """Compute it; gluon's losses are means over all axes but the batch, hence the factor."""
        pixels = F.ones_like(target).sum(axis=1)
        reconstruction = self.reconstruction(logits, target) * pixels
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(axis=1)
        return reconstruction + divergence


LOSSES = {
    "softmax_cross_entropy": gluon.loss.SoftmaxCrossEntropyLoss,
    "evidence_lower_bound": EvidenceLowerBound,
}


def make_trainer(constants, parameters):
    """Make a gluon.Trainer without the store that several devices would need."""
    settings = {"learning_rate": constants["learning_rate"], "wd": 0.0}
    if constants["name"] == "adam":
        settings["beta1"], settings["beta2"] = constants["beta1"], constants["beta2"]
        settings["epsilon"] = epsilon_hat(constants)
        return gluon.Trainer(parameters, "adam", settings, kvstore=None)
    settings["momentum"] = constants.get("momentum", 0.0)
    return gluon.Trainer(parameters, "sgd", settings, kvstore=None)


def canonical_parameters(block, path=()):
    """Canonical name -> gluon parameter."""
    named = {}
    for kind, parameter in block._reg_params.items():
        kind = "embedding" if isinstance(block, gluon.nn.Embedding) else KINDS.get(kind, kind)
        if parameter.grad_req != "null" or kind in STATISTICS:
            named[canonical_name([*path, kind])] = parameter
    for name, child in block._children.items():
        named.update(canonical_parameters(child, (*path, name)))
    return named


class Adapter(Base):
    """``mxnet:imperative`` and ``mxnet:hybridized``. MXNet was retired in 2023.

    https://mxnet.apache.org/versions/1.9.1/api/python/docs/tutorials/packages/gluon/blocks/hybridize.html
    """

    layout = LAYOUT
    no_gpu = "MXNet's GPU packages want CUDA 11 and are not looked at here"

    def describe(self):
        """Describe the run. Threads come from OMP_NUM_THREADS and cannot be read back."""
        return {
            "version": mx.__version__,
            "threads": None,
            "onednn": mx.runtime.Features().is_enabled("MKLDNN"),
        }

    def load(self, module, case):
        """Build the block and set its parameters under its own names."""
        self.begin(module, case)
        self.model = module.build(case.sizes)
        self.model.initialize(ctx=mx.cpu())
        self.named = canonical_parameters(self.model)
        for name, value in self.given(self.named):
            self.named[name].set_data(nd.array(value))
        (objective,) = case.objectives
        self.outputs, self.targets = objective["outputs"], objective["targets"]
        self.loss = LOSSES[objective["loss"]]()
        if self.mode == "hybridized":
            self.model.hybridize()
            self.loss.hybridize()
        self.trainer = make_trainer(case.optimizer, self.model.collect_params())
        nd.waitall()

    def place(self, name, value):
        """Make an array of the context."""
        return nd.array(super().place(name, value), dtype=value.dtype)

    def _forward(self, inputs):
        outputs = self.model(*(inputs[name] for name in self.case.used))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return dict(zip(self.case.outputs, outputs, strict=True))

    def _losses(self, inputs):
        """Compute the losses of every example."""
        outputs = self._forward(inputs)
        arguments = [outputs[name] for name in self.outputs]
        return self.loss(*arguments, *(inputs[name] for name in self.targets))

    def infer(self):
        """Run the forward pass outside of autograd.record, which means evaluation mode."""
        return self._forward(self.next(self.sets))

    def train_step(self):
        """Run forward and backward, and a step that divides by the batch size."""
        inputs = self.next(self.sets)
        with autograd.record():
            losses = self._losses(inputs)
        losses.backward()
        self.trainer.step(self.case.batch)
        return {self.loss_name: losses.mean()}

    def gradients(self):
        """Compute gradients of the mean loss, then restore running statistics."""
        statistics = [self.named[name] for name in self.case.state]
        before = [statistic.data().copy() for statistic in statistics]
        inputs = self.next(self.sets)
        with autograd.record():
            loss = self._losses(inputs).mean()
        loss.backward()
        nd.waitall()
        for statistic, value in zip(statistics, before, strict=True):
            statistic.set_data(value)
        handle = {"gradient/" + name: self.named[name].grad() for name in self.case.parameters}
        return dict(handle, **{self.loss_name: loss})

    def parameters(self):
        """Return the block's own arrays."""
        return self.by_kind({name: parameter.data() for name, parameter in self.named.items()})

    def wait(self, handle):
        """Call ``waitall``, which waits for all queued operations, updates included."""
        nd.waitall()

    def to_numpy(self, value):
        """Return a copy."""
        return value.asnumpy()

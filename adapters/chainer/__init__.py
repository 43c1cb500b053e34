"""Chainer, the first to define by run: links, functions and optimisers over NumPy."""

import warnings

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pkg_resources warns that it is deprecated
    import chainer
    from chainer import functions as F
    from chainer import links as L

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import canonical_name, epsilon_hat
from levelfield.adapters.layout import CHANNELS_FIRST, Layout

LAYOUT = Layout({**CHANNELS_FIRST, ("in", "out"): ("out", "in")})

# The order of the gates is that of the definitions, i, f, g, o, although the documentation of
# n_step_lstm says i, f, o, a (chainer/functions/rnn/n_step_lstm.py, _lstm).
#
# Canonical names of the arrays of a norm link. In all other links, W is the kernel and b the bias.
NORM = {"gamma": "scale", "beta": "bias", "avg_mean": "mean", "avg_var": "variance"}
ARRAYS = {L.BatchNormalization: NORM, L.EmbedID: {"W": "embedding"}}
STATISTICS = ("mean", "variance")  # these are arrays, all others are parameters
GATES = {L.NStepRNNTanh: 1, L.NStepLSTM: 4, L.NStepGRU: 3}


def evidence_lower_bound(logits, mean, log_variance, target):
    """The negative bound, averaged over the batch, after Chainer's example chainer/examples/vae."""
    reconstruction = F.sum(F.bernoulli_nll(target, logits, reduce="no"))
    return (reconstruction + F.gaussian_kl_divergence(mean, log_variance)) / len(target)


LOSSES = {
    "softmax_cross_entropy": F.softmax_cross_entropy,
    "evidence_lower_bound": evidence_lower_bound,
}


def make_optimizer(constants):
    """Make an optimiser of chainer.optimizers."""
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        beta1, beta2 = constants["beta1"], constants["beta2"]
        return chainer.optimizers.Adam(rate, beta1, beta2, epsilon_hat(constants))
    if constants["name"] == "momentum":
        return chainer.optimizers.MomentumSGD(rate, constants["momentum"])
    return chainer.optimizers.SGD(rate)


def canonical_arrays(model):
    """Map a canonical name to parameters (one for each gate) or to the array of a statistic."""
    named = {}
    for path, link in model.namedlinks():
        base = canonical_name(path.strip("/").split("/"))
        if type(link) in GATES:
            (layer,) = link.children()
            gates = GATES[type(link)]
            kinds = {"w": ("kernel", "recurrent_kernel"), "b": ("bias", "recurrent_bias")}
            for letter, names in kinds.items():
                for place, name in enumerate(names):
                    numbers = range(place * gates, (place + 1) * gates)
                    named[base + "/" + name] = [getattr(layer, letter + str(n)) for n in numbers]
            if gates != GATES[L.NStepGRU]:
                # The layer adds both biases. Training both would move their sum twice as fast.
                for bias in named.pop(base + "/recurrent_bias"):
                    bias.array[...] = 0
                    bias.frozen = True
        elif not isinstance(link, chainer.ChainList):
            kinds = ARRAYS.get(type(link), {"W": "kernel", "b": "bias"})
            for kind, name in kinds.items():
                member = getattr(link, kind, None)
                if member is not None:
                    named[base + "/" + name] = member if name in STATISTICS else [member]
    return named


class Adapter(Base):
    """``chainer:eager``. Chainer has been in maintenance since 2019; this is the last release."""

    layout = LAYOUT
    unbiased_variance = True
    no_gpu = "its GPU array library, CuPy 7, is not looked at here"

    def configure(self):
        """Set the precision; the threads are those of NumPy."""
        chainer.config.dtype = np.float32

    def describe(self):
        """Describe the run. The threads are those of NumPy's BLAS and cannot be read back."""
        return {"version": chainer.__version__, "threads": None}

    def load(self, module, case):
        """Build the chain and copy the parameters into it under its own names."""
        self.begin(module, case, LOSSES)
        self.model = module.build(case.sizes)
        self.optimizer = make_optimizer(case.optimizer).setup(self.model)
        self.named = canonical_arrays(self.model)
        for name, value in self.given(self.named):
            held = self.named[name]
            if isinstance(held, list):
                for parameter, part in zip(held, np.split(value, len(held)), strict=True):
                    parameter.array[...] = part
            else:
                held[...] = value
        for parameter in self.model.params():
            parameter.update_rule.enabled = not getattr(parameter, "frozen", False)

    def infer(self):
        """Run the forward pass without the graph for gradients."""
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            return self.case.named_outputs(self.model(**self.next(self.used)))

    def train_step(self):
        """Run forward, backward and update."""
        loss = self.objective(self.model, self.next(self.sets))
        self.model.cleargrads()
        loss.backward()
        self.optimizer.update()
        return {self.loss_name: loss}

    def gradients(self):
        """Compute losses and gradients as in a step, then restore running statistics."""
        before = {n: held.copy() for n, held in self.named.items() if not isinstance(held, list)}
        loss = self.objective(self.model, self.next(self.sets))
        self.model.cleargrads()
        loss.backward()
        for name, value in before.items():
            self.named[name][...] = value
        handle = {self.loss_name: loss}
        for name, held in self.named.items():
            if isinstance(held, list):
                handle["gradient/" + name] = np.concatenate([parameter.grad for parameter in held])
        return handle

    def parameters(self):
        """Return copies; the gates of a recurrent link are joined."""
        return self.by_kind(
            {
                name: np.concatenate([parameter.array for parameter in held])
                if isinstance(held, list)
                else held.copy()
                for name, held in self.named.items()
            }
        )

    def wait(self, handle):
        """Do nothing: NumPy is synchronous."""

    def to_numpy(self, value):
        """Return the array of a variable."""
        return value.array if isinstance(value, chainer.Variable) else value

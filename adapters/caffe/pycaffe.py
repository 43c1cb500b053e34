"""``caffe:pycaffe``: Caffe itself, by its own Python interface; for Python 3.6 and later.

https://caffe.berkeleyvision.org/tutorial/interfaces.html and
https://caffe.berkeleyvision.org/tutorial/solver.html
"""

import os
import tempfile

os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112 - else Caffe logs every layer to standard error

import caffe

from levelfield.adapters.base import Adapter, Unsupported, epsilon_hat
from levelfield.adapters.caffe import LAYOUT, network, weights
from levelfield.adapters.caffe.layers import blob_of, data, layer

SOLVERS = {"sgd": "SGD", "momentum": "SGD", "adam": "Adam"}
LOSSES = {"softmax_cross_entropy": "SoftmaxWithLoss"}


def solver_settings(constants, network_path):
    """Return the text of a solver."""
    settings = {
        "train_net": f'"{network_path}"',
        "type": '"' + SOLVERS[constants["name"]] + '"',
        "base_lr": repr(constants["learning_rate"]),
        "lr_policy": '"fixed"',
        "display": "0",
        "momentum": repr(constants.get("momentum", constants.get("beta1", 0.0))),
    }
    if constants["name"] == "adam":
        settings["momentum2"] = repr(constants["beta2"])
        settings["delta"] = repr(epsilon_hat(constants))
    return "\n".join(f"{name}: {value}" for name, value in settings.items())


class PycaffeAdapter(Adapter):
    """An adapter whose net for inference shares the blobs of the solver's net."""

    layout = LAYOUT
    unbiased_variance = True
    no_gpu = "Caffe's GPU builds want CUDA 10 and are not looked at here"

    def configure(self):
        """Set the device; the threads are those of Caffe's BLAS."""
        caffe.set_mode_cpu()

    def describe(self):
        """Describe the run. The threads are those of Caffe's BLAS and cannot be read back."""
        return {"version": caffe.__version__, "threads": None}

    def load(self, module, case):
        """Write prototxt, caffemodel and solver to a folder and read them from it."""
        self.begin(module, case)
        (objective,) = case.objectives
        if objective["loss"] not in LOSSES:
            raise Unsupported("Caffe has no layer for the loss " + objective["loss"])
        (self.target,) = objective["targets"]
        deployed = network(module, case)
        bottoms = objective["outputs"] + [self.target]
        trained = data(self.target, [case.batch]) + deployed
        trained += layer("loss", LOSSES[objective["loss"]], bottoms)
        with tempfile.TemporaryDirectory() as folder:
            paths = {}
            files = {"deployed": deployed, "trained": trained}
            files["solver"] = solver_settings(case.optimizer, os.path.join(folder, "trained"))
            for name, text in files.items():
                paths[name] = os.path.join(folder, name)
                with open(paths[name], "w") as file:
                    file.write(text)
            paths["weights"] = os.path.join(folder, "weights.caffemodel")
            with open(paths["weights"], "wb") as file:
                file.write(weights(case))
            self.solver = caffe.get_solver(paths["solver"])
            self.solver.net.copy_from(paths["weights"])
            self.net = caffe.Net(paths["deployed"], caffe.TEST)
        self.net.share_with(self.solver.net)

    def _put(self, net, names):
        inputs = self.next(self.sets)
        for name in names:
            net.blobs[name].data[...] = inputs[name]

    def infer(self):
        """Copy the inputs into their blobs and run the forward pass."""
        self._put(self.net, self.case.used)
        self.net.forward()
        return {name: self.net.blobs[name].data for name in self.case.outputs}

    def train_step(self):
        """Run one step of the solver."""
        self._put(self.solver.net, [*self.case.used, self.target])
        self.solver.step(1)
        return {self.loss_name: self.solver.net.blobs["loss"].data}

    def gradients(self):
        """Run forward and backward without the solver, then restore running statistics."""
        net = self.solver.net
        before = {name: self._params(name)[0].data.copy() for name in self.case.state}
        self._put(net, [*self.case.used, self.target])
        net.clear_param_diffs()
        net.forward()
        net.backward()
        for name, value in before.items():
            self._params(name)[0].data[...] = value
        handle = {"gradient/" + n: self._params(n)[0].diff.copy() for n in self.case.parameters}
        return dict(handle, **{self.loss_name: net.blobs["loss"].data.copy()})

    def _params(self, name):
        """Return the blob of an array, and the weight of a statistic."""
        path, number = blob_of(name, self.case.state)
        blobs = self.solver.net.params[path]
        return blobs[number], blobs[2] if name in self.case.state else None

    def parameters(self):
        """Return parameters and statistics; statistics are divided by their weight."""
        handle = {"parameter/" + n: self._params(n)[0].data.copy() for n in self.case.parameters}
        for name in self.case.state:
            total, weight = self._params(name)
            handle["state/" + name] = total.data.astype("float64") / weight.data[0]
        return handle

    def wait(self, handle):
        """Do nothing: Caffe is synchronous."""

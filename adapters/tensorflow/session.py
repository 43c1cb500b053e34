"""``tensorflow:session``: TensorFlow 1's way by tf.compat.v1, graph, feed and session.

https://www.tensorflow.org/api_docs/python/tf/compat/v1/Session
https://www.tensorflow.org/api_docs/python/tf/compat/v1/train
The models are those of the other modes: a tf.Module builds into the default graph.
"""

import tensorflow as tf

from levelfield.adapters.base import Unsupported, epsilon_hat
from levelfield.adapters.on_functions import OnFunctions
from levelfield.adapters.tensorflow.core import LAYOUT, LOSSES, named_variables

v1 = tf.compat.v1


def make_optimizer(constants):
    """Make an optimiser of tf.compat.v1.train."""
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        # The documentation of this Adam says that its epsilon is the "epsilon hat".
        beta1, beta2 = constants["beta1"], constants["beta2"]
        return v1.train.AdamOptimizer(rate, beta1, beta2, epsilon_hat(constants))
    if constants["name"] == "momentum":
        return v1.train.MomentumOptimizer(rate, constants["momentum"])
    return v1.train.GradientDescentOptimizer(rate)


class SessionAdapter(OnFunctions):
    """One graph and one session; feeding NumPy arrays is part of every step."""

    layout = LAYOUT
    no_gpu = "sessions are looked at on the CPU only"

    def configure(self):
        """Switch to graphs, and prepare the configuration of the sessions."""
        v1.disable_eager_execution()
        self.config = v1.ConfigProto(
            intra_op_parallelism_threads=self.threads,
            inter_op_parallelism_threads=1,
            device_count={"GPU": 0},
        )
        self.session = None

    def describe(self):
        """Describe the run by the session's configuration."""
        return {
            "version": tf.__version__,
            "threads": self.config.intra_op_parallelism_threads,
            "interop_threads": self.config.inter_op_parallelism_threads,
        }

    def load(self, module, case):
        """Make a new graph and load the values into its variables."""
        if len(case.objectives) > 1:
            raise Unsupported("a graph of two objectives is not written for sessions")
        if self.session:
            self.session.close()
        self.begin(module, case, LOSSES)
        self.functions, self.graph = {}, tf.Graph()
        with self.graph.as_default():
            self.model = module.build(case.sizes)
            self.variables = named_variables(self.model)
            self.inputs = {
                name: v1.placeholder(value.dtype, value.shape, name)
                for name, value in case.sets[0].items()
            }
        self.session = v1.Session(graph=self.graph, config=self.config)
        for name, value in self.given(self.variables):
            self.variables[name].load(value, self.session)
        self.trained = {name: self.variables[name] for name in case.parameters}

    def made(self, kind):
        """Add the computations of a kind to the graph; the first run optimises them."""
        with self.graph.as_default():
            fetches, names = self._added(kind)
        feeds = [self.inputs[name] for name in names]
        run = self.session.make_callable([*fetches.values()], feeds)
        return names, [name for name in fetches if name], run

    def _added(self, kind):
        if kind == "parameters":
            return self.by_kind(self.variables), []
        if kind == "inference":
            used = {name: self.inputs[name] for name in self.case.used}
            options = {"training": False} if self.case.state else {}
            return self.case.named_outputs(self._converted()(**used, **options)), self.case.used
        options, earlier = {"training": True} if self.case.state else {}, self._moves()
        loss = self.objective(lambda **inputs: self._converted()(**inputs, **options), self.inputs)
        fetches, variables = {self.loss_name: loss}, [*self.trained.values()]
        if kind == "gradients":
            zeros = tf.UnconnectedGradients.ZERO
            gradients = tf.gradients(loss, variables, unconnected_gradients=zeros)
            names = ("gradient/" + name for name in self.trained)
            fetches.update(zip(names, map(tf.convert_to_tensor, gradients), strict=True))
        else:
            optimizer = make_optimizer(self.case.optimizer)
            pairs = optimizer.compute_gradients(loss, variables)
            if self.case.optimizer["name"] == "momentum":
                # With sparse gradients of an embedding, only rows in the batch keep momentum.
                pairs = [(tf.convert_to_tensor(g), v) for g, v in pairs if g is not None]
            step = optimizer.apply_gradients(pairs)
            self.session.run(v1.variables_initializer(optimizer.variables()))
            # A graph runs only the operations that are fetched, also for running statistics.
            moves = [operation for operation in self._moves() if operation not in earlier]
            fetches[""] = tf.group(step, *moves)
        return fetches, list(self.inputs)

    def _moves(self):
        """The operations that move running statistics: one per statistic and pass in the graph."""
        return [
            operation
            for name in self.case.state
            for operation in self.variables[name].handle.consumers()
            if operation.type == "AssignSubVariableOp"
        ]

    def _converted(self):
        """Return the model's call, with loops over tensors turned into loops of the graph."""
        call = tf.autograph.to_graph(type(self.model).__call__)
        return lambda **arguments: call(self.model, **arguments)

    def parameters(self):
        """Fetch the variables."""
        _, keys, run = self.function("parameters")
        return dict(zip(keys, run(), strict=True))

"""TensorFlow without Keras layers: tf.Module, tf.Variable and tf.nn, as its Core guides teach."""

import numpy as np
import tensorflow as tf

from adapters.base import Adapter as Base
from adapters.base import Unsupported
from adapters.tensorflow.optimizers import OPTIMIZERS


def softmax_cross_entropy(logits, labels):
    """The loss of the guide "Multilayer perceptrons for digit recognition with Core APIs"."""
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(each)


LOSSES = {"softmax_cross_entropy": softmax_cross_entropy}


class Adapter(Base):
    """``tensorflow:eager``, ``tensorflow:function`` and ``tensorflow:xla``.

    tf.function around the forward pass and around the whole step, as in
    https://www.tensorflow.org/guide/basics and https://www.tensorflow.org/guide/function; XLA as
    in https://openxla.org/xla/tf2xla/tutorials/jit_compile. TensorFlow's axes are the canonical
    ones (NHWC, HWIO, in before out), so nothing is transposed.
    """

    def __init__(self, device, mode, threads, precision):
        gpus = tf.config.list_physical_devices("GPU")
        if device == "cuda" and not gpus:
            raise Unsupported("TensorFlow finds no device of the kind cuda")
        if precision != "float32":
            raise Unsupported("this adapter computes in float32 only")
        self.mode, self.device = mode, device
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if device == "cuda" else ():
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.experimental.enable_tensor_float_32_execution(False)
        tf.config.experimental.set_synchronous_execution(True)

    def describe(self):
        """What TensorFlow says of itself."""
        return {
            "version": tf.__version__,
            "numpy": np.__version__,
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "interop_threads": tf.config.threading.get_inter_op_parallelism_threads(),
            "device": self._placed(),
            "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
            "synchronous": tf.config.experimental.get_synchronous_execution(),
            "compiler": "xla" if self.mode == "xla" else None,
        }

    def _placed(self):
        """Where an operation lands of itself."""
        return "cuda" if "GPU" in tf.identity(0.0).device else "cpu"

    def device_memory(self):
        """Peak of TensorFlow's allocator since the last call.

        https://www.tensorflow.org/api_docs/python/tf/config/experimental/get_memory_info
        """
        if self.device == "cpu":
            return None
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        tf.config.experimental.reset_memory_stats("GPU:0")
        return {"used_peak_bytes": peak, "reserved_peak_bytes": None}

    def load(self, build, case):
        """Parameters are assigned to the variables that the module's layers hold by name."""
        self.objective, self.cursor = case.objective, 0
        self.loss_function = LOSSES[case.objective["loss"]]
        self.model = build(case.sizes)
        self.variables = {
            f"{layer.name}/{attribute}": variable
            for layer in self.model.submodules
            for attribute, variable in vars(layer).items()
            if isinstance(variable, tf.Variable)
        }
        for name, value in case.parameters.items():
            self.variables[name].assign(value)
        self.sets = []
        for arrays in case.sets:
            tensors = {name: tf.constant(value) for name, value in arrays.items()}
            target = tensors.pop(case.objective["target"])
            self.sets.append((tuple(tensors.values()), target))
        constants = dict(case.optimizer)
        optimizer = OPTIMIZERS[constants.pop("name")]
        self.optimizer = optimizer(list(self.variables.values()), **constants)
        self.forward = self._function(self._forward)
        self.loss_and_gradients = self._function(self._loss_and_gradients)
        self.step = self._function(self._step)

    def _function(self, function):
        if self.mode == "eager":
            return function
        return tf.function(function, jit_compile=True if self.mode == "xla" else None)

    def compilations(self):
        """Traces of the present functions, each of which compiles where XLA does."""
        if self.mode == "eager":
            return None
        functions = self.forward, self.loss_and_gradients, self.step
        return sum(each.experimental_get_tracing_count() for each in functions)

    def _forward(self, inputs):
        return self.model(*inputs)

    def _loss_and_gradients(self, inputs, target):
        with tf.GradientTape() as tape:
            loss = self.loss_function(self.model(*inputs), target)
        return loss, tape.gradient(loss, list(self.variables.values()))

    def _step(self, inputs, target):
        loss, gradients = self._loss_and_gradients(inputs, target)
        self.optimizer.apply_gradients(gradients, list(self.variables.values()))
        return loss

    def compile(self, phase):
        """Traces the graph. XLA compiles at the first call only, so tracing is left there too."""
        if self.mode != "function":
            return False
        inputs, target = self.sets[0]
        if phase == "inference":
            self.forward.get_concrete_function(inputs)
        else:
            self.step.get_concrete_function(inputs, target)
        return True

    def _next(self):
        batch = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return batch

    def infer(self):
        """Forward pass."""
        inputs, _ = self._next()
        return {self.objective["output"]: self.forward(inputs)}

    def train_step(self):
        """Forward, backward and update."""
        inputs, target = self._next()
        return {"loss": self.step(inputs, target)}

    def gradients(self):
        """Loss and gradients."""
        loss, gradients = self.loss_and_gradients(*self._next())
        named = zip(self.variables, gradients, strict=True)
        return dict({"gradient/" + name: gradient for name, gradient in named}, loss=loss)

    def parameters(self):
        """The variables' present values; later assignments do not change them."""
        return {"parameter/" + n: v.read_value() for n, v in self.variables.items()}

    def wait(self, handle):
        """On the CPU nothing is in flight: operations and graphs return when they are done.

        Only GPUs and set_synchronous_execution(False) make TensorFlow asynchronous; describe()
        reads the switch back. Its own fence, for GPUs, would run one more operation on the CPU.
        https://www.tensorflow.org/api_docs/python/tf/test/experimental/sync_devices
        """
        if self.device == "cuda":
            tf.test.experimental.sync_devices()

    def read(self, handle):
        """Already canonical."""
        return {name: value.numpy() for name, value in handle.items()}

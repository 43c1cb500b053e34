"""TensorFlow without Keras layers: tf.Module, tf.Variable and tf.nn, as its Core guides teach."""

import functools

import tensorflow as tf

from levelfield.adapters.base import Unsupported
from levelfield.adapters.layout import Layout
from levelfield.adapters.on_tensorflow import OnTensorFlow
from levelfield.adapters.tensorflow.optimizers import OPTIMIZERS

LAYOUT = Layout({("up_height", "up_width", "in", "out"): ("up_height", "up_width", "out", "in")})


def softmax_cross_entropy(logits, labels):
    """The loss of the guide "Multilayer perceptrons for digit recognition with Core APIs"."""
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(entropy)


def in_batch_softmax(logits):
    """Softmax cross-entropy; the label of each row is its own number."""
    return softmax_cross_entropy(logits, tf.range(logits.shape[0]))


def binary_cross_entropy(logits, labels):
    """Binary cross-entropy, averaged over the batch."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def evidence_lower_bound(logits, mean, log_variance, target):
    """The negative bound, averaged over the batch, with the divergence in closed form."""
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)
    reconstruction = tf.reduce_sum(entropy, axis=-1)
    divergence = tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1.0 - log_variance, axis=-1)
    return tf.reduce_mean(reconstruction + 0.5 * divergence)


LOSSES = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "in_batch_softmax": in_batch_softmax,
    "binary_cross_entropy": binary_cross_entropy,
    "evidence_lower_bound": evidence_lower_bound,
}


def named_variables(node, path=""):
    """Map canonical names to tf.Variables; members of lists count from one."""
    if isinstance(node, tf.Variable):
        return {path[1:]: node}
    if isinstance(node, tf.Module):
        children = [("/" + name, child) for name, child in vars(node).items() if name[0] != "_"]
    elif isinstance(node, (list, tuple)):
        children = [(str(number), child) for number, child in enumerate(node, start=1)]
    else:
        return {}
    named = {}
    for name, child in children:
        named.update(named_variables(child, path + name))
    return named


class CoreAdapter(OnTensorFlow):
    """``tensorflow:eager``, ``tensorflow:function`` and ``tensorflow:xla``.

    tf.function wraps the forward pass and the whole step, as in
    https://www.tensorflow.org/guide/basics and https://www.tensorflow.org/guide/function. XLA is
    used as in https://openxla.org/xla/tf2xla/tutorials/jit_compile. TensorFlow's axes are the
    canonical ones (NHWC, HWIO, in before out). Only a transposed convolution's kernel is turned.
    """

    layout = LAYOUT

    def configure(self):
        """Choose the device, and set the threads and the precision."""
        gpus = tf.config.list_physical_devices("GPU")
        if self.device == "cuda" and not gpus:
            raise Unsupported("TensorFlow finds no device of the kind cuda")
        if self.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if self.device == "cuda" else ():
            tf.config.experimental.set_memory_growth(gpu, True)
        super().configure()
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.experimental.set_synchronous_execution(True)

    def describe(self):
        """Describe the run as TensorFlow reports it."""
        return {
            "version": tf.__version__,
            "threads": self.thread_count(),
            "interop_threads": tf.config.threading.get_inter_op_parallelism_threads(),
            "device": self._placed(),
            "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
            "synchronous": tf.config.experimental.get_synchronous_execution(),
            "compiler": "xla" if self.mode == "xla" else None,
        }

    def _placed(self):
        """Return the device on which TensorFlow places an operation by default."""
        return "cuda" if "GPU" in tf.identity(0.0).device else "cpu"

    def load(self, module, case):
        """Assign the parameters to the variables that the module's layers hold by name."""
        self.begin(module, case, LOSSES)
        self.model = module.build(case.sizes)
        self.variables = named_variables(self.model)
        for name, value in self.given(self.variables):
            self.variables[name].assign(value)
        self.trained = self.trained_by_each(self.variables)
        constants = dict(case.optimizer)
        make = OPTIMIZERS[constants.pop("name")]
        self.optimizers = {
            name: make(list(trained.values()), **constants)
            for name, trained in self.trained.items()
        }
        self.forward = self._function(self._forward)
        self.losses_and_gradients = self._function(self._losses_and_gradients)
        self.step = self._function(self._step)
        self.decode = self._function(self._decode)

    def place(self, name, value):
        """Make a constant."""
        return tf.constant(super().place(name, value))

    def _function(self, function):
        if self.mode == "eager":
            return function
        return tf.function(function, jit_compile=True if self.mode == "xla" else None)

    def compilations(self):
        """Count the traces of the present functions; with XLA each trace is a compilation."""
        if self.mode == "eager":
            return None
        functions = self.forward, self.losses_and_gradients, self.step, self.decode
        return sum(function.experimental_get_tracing_count() for function in functions)

    def counts(self):
        """Return the same count by name."""
        traces = self.compilations()
        return {} if traces is None else {"traces of tf.function": traces}

    def _forward(self, inputs):
        if self.case.state:
            return self.model(**inputs, training=False)
        return self.model(**inputs)

    def _loss_and_gradients(self, name, inputs):
        """Compute loss and gradients of one objective; unconnected gradients are zeros."""
        model = functools.partial(self.model, training=True) if self.case.state else self.model
        own = hasattr(self.module, name)
        with tf.GradientTape() as tape:
            loss = self.objectives[name](self.model if own else model, inputs)
        return loss, tape.gradient(
            loss,
            list(self.trained[name].values()),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def _losses_and_gradients(self, inputs):
        return {name: self._loss_and_gradients(name, inputs) for name in self.objectives}

    def _step(self, inputs):
        if hasattr(self.module, "train_step"):
            return self.module.train_step(self.model, self.optimizers, inputs)
        losses = {}
        for name, optimizer in self.optimizers.items():
            losses[name], gradients = self._loss_and_gradients(name, inputs)
            optimizer.apply_gradients(gradients)
        return losses

    def _decode(self, prompt, count):
        return self.module.generate(self.model, prompt, count)

    def compile(self, phase):
        """Trace the graph. XLA compiles only at the first call, which then also traces."""
        if self.mode != "function":
            return False
        if phase == "inference":
            self.forward.get_concrete_function(self.used[0])
        elif phase == "training":
            self.step.get_concrete_function(self.sets[0])
        else:
            self.decode.get_concrete_function(self.prompts[0], self.case.generation["count"])
        return True

    def infer(self):
        """Run the forward pass."""
        return self.case.named_outputs(self.forward(self.next(self.used)))

    def train_step(self):
        """Run forward, backward and update."""
        return self.step(self.next(self.sets))

    def generate(self, count):
        """Read the prompt and decode all tokens in one function."""
        return {"tokens": self.decode(self.next(self.prompts), count)}

    def gradients(self):
        """Compute losses and gradients, then restore running statistics."""
        statistics = [v for v in self.variables.values() if not v.trainable]
        before = [variable.read_value() for variable in statistics]
        handle = {}
        results = self.losses_and_gradients(self.next(self.sets))
        for name, (loss, gradients) in results.items():
            handle[name] = loss
            for key, gradient in zip(self.trained[name], gradients, strict=True):
                handle["gradient/" + key] = tf.convert_to_tensor(gradient)
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value)
        return handle

    def parameters(self):
        """Return the variables' present values; later assignments do not change them."""
        return self.by_kind({name: v.read_value() for name, v in self.variables.items()})

    def wait(self, handle):
        """Do nothing on the CPU, where operations and graphs return when they are done.

        Only GPUs and set_synchronous_execution(False) make TensorFlow asynchronous; describe()
        reads this switch back. TensorFlow's fence for GPUs would run one more operation on the CPU.
        https://www.tensorflow.org/api_docs/python/tf/test/experimental/sync_devices
        """
        if self.device == "cuda":
            tf.test.experimental.sync_devices()

    def to_numpy(self, value):
        """Return a copy."""
        return value.numpy()

"""Keras 3 on its three backends: a compiled model stepped by ``train_on_batch``, or by ``fit``.

Follows https://keras.io/api/models/model_training_apis/ and, for the gate's gradients, the guides
"Writing a training loop from scratch" in TensorFlow, JAX and PyTorch
(https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/, ..._in_jax/, ..._in_torch/).
Inputs are NumPy arrays, as there; copying them into the backend is part of every step.
Out-of-the-box options throughout: channels last, ``jit_compile="auto"``. Layers carry canonical
names, so a variable's path after the model's name is its canonical name; axes are canonical.

The fit modes give a whole slice of steps to one ``fit`` or ``predict``, and so pay its fixed costs
(data set, callbacks, fetching the logs) once a slice; a single step is a ``fit`` over one batch.
"""

import importlib
import os
import tempfile

import numpy as np

from adapters.base import Adapter as Base
from adapters.base import Unsupported

LOSSES = {
    "softmax_cross_entropy": lambda keras: keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    )
}

# Keras' Adam folds the bias correction into the step size, so that its epsilon is, as its page says
# (https://keras.io/api/optimizers/adam/), the "epsilon hat" before section 2.1 of Kingma and Ba:
# epsilon * sqrt(1 - beta2^t), which changes with the step t while Keras takes a constant. Against
# the pinned formula, in float64 over ten steps of both models, three presets, batches 8 and 64:
# our epsilon as it is parts the losses by up to 7e-5 and the movement of a parameter by up to 5e-2
# (gradients near epsilon); epsilon hat of step 2 by up to 5e-7 and 1.2e-3. Hence the latter.
EPSILON_HAT_STEP = 2


def adam(keras, constants):
    """Keras' Adam with the pinned epsilon in its own terms."""
    beta1, beta2 = constants["beta1"], constants["beta2"]
    epsilon_hat = constants["epsilon"] * (1 - beta2**EPSILON_HAT_STEP) ** 0.5
    return keras.optimizers.Adam(
        constants["learning_rate"], beta_1=beta1, beta_2=beta2, epsilon=epsilon_hat
    )


OPTIMIZERS = {
    "sgd": lambda keras, o: keras.optimizers.SGD(o["learning_rate"]),
    "momentum": lambda keras, o: keras.optimizers.SGD(o["learning_rate"], momentum=o["momentum"]),
    "adam": adam,
}


class Adapter(Base):
    """``keras:BACKEND`` and ``keras:BACKEND-fit``."""

    def __init__(self, device, mode, threads, precision):
        self.device = device
        backend, _, loop = mode.partition("-")
        self.backend, self.fits = backend, loop == "fit"
        os.environ["KERAS_BACKEND"] = backend
        # Keras reads a keras.json there that could change its data layout and number format.
        if "KERAS_HOME" not in os.environ:
            os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras-")
        if device == "cpu":
            # Every backend would take a GPU by itself, and TensorFlow would compile because of it.
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        self.native = importlib.import_module(backend)
        if backend == "tensorflow":
            self.native.config.threading.set_intra_op_parallelism_threads(threads)
            self.native.config.experimental.enable_tensor_float_32_execution(False)
        elif backend == "jax":
            self.native.config.update("jax_platforms", device)
            self.native.config.update("jax_default_matmul_precision", "highest")
        else:
            self.native.set_num_threads(threads)
            self.native.set_float32_matmul_precision("highest")
            self.native.backends.cudnn.conv.fp32_precision = "ieee"
        self.compiled = None
        if backend == "jax":
            self.compiled = 0
            self.native.monitoring.register_event_duration_secs_listener(self._heard)
        self.keras = importlib.import_module("keras")
        if device == "cuda" and not self._has_gpu():
            raise Unsupported("Keras' backend " + backend + " finds no device of the kind cuda")

    def _heard(self, event, duration, **_):
        self.compiled += event.endswith(("jaxpr_trace_duration", "backend_compile_duration"))

    def _has_gpu(self):
        """Whether the backend places its work on a GPU."""
        if self.backend == "tensorflow":
            return bool(self.native.config.list_logical_devices("GPU"))
        if self.backend == "jax":
            return self.native.default_backend() == "gpu"
        return self.native.cuda.is_available()

    def compilations(self):
        """Traces and compilations by JAX's own count, traces of TensorFlow's functions by ours.

        Keras keeps those functions to itself, but the Python of a step runs only while it is
        traced. None on PyTorch, where Keras compiles nothing by default.
        """
        return self.compiled

    def device_memory(self):
        """Peak of the backend's allocator; of JAX's since the process began."""
        if self.device == "cpu":
            return None
        if self.backend == "torch":
            used = self.native.cuda.max_memory_allocated()
            reserved = self.native.cuda.max_memory_reserved()
            self.native.cuda.reset_peak_memory_stats()
            return {"used_peak_bytes": used, "reserved_peak_bytes": reserved}
        if self.backend == "jax":
            found = self.native.devices()[0].memory_stats() or {}
            used = found.get("peak_bytes_in_use")
            return {"used_peak_bytes": used, "reserved_peak_bytes": found.get("peak_pool_bytes")}
        used = self.native.config.experimental.get_memory_info("GPU:0")["peak"]
        self.native.config.experimental.reset_memory_stats("GPU:0")
        return {"used_peak_bytes": used, "reserved_peak_bytes": None}

    def _counted(self, step):
        def traced(*arguments, **options):
            self.compiled += 1
            return step(*arguments, **options)

        return traced

    def describe(self):
        """JAX sizes its pool by NPROC and the affinity and cannot read it back."""
        threads = {
            "tensorflow": lambda: self.native.config.threading.get_intra_op_parallelism_threads(),
            "jax": lambda: None,
            "torch": lambda: self.native.get_num_threads(),
        }[self.backend]()
        return {
            "version": self.keras.__version__,
            "threads": threads,
            "device": self.device,
            "backend": self.keras.backend.backend(),
            "backend_version": self.native.__version__,
            "numpy": np.__version__,
            # What "auto" becomes: an empty model has nothing that speaks against compilation.
            "jit_compile": self.keras.Sequential().jit_compile,
            "image_data_format": self.keras.config.image_data_format(),
            "dtype": self.keras.config.dtype_policy().name,
        }

    def load(self, build, case):
        """A new compiled model, its weights replaced by the case's."""
        self.keras.utils.clear_session()
        self.model = build(case.sizes)
        self.criterion = LOSSES[case.objective["loss"]](self.keras)
        optimizer = OPTIMIZERS[case.optimizer["name"]](self.keras, case.optimizer)
        self.model.compile(optimizer=optimizer, loss=self.criterion)
        if self.backend == "tensorflow":
            self.compiled = self.compiled or 0
            self.model.train_step = self._counted(self.model.train_step)
            self.model.predict_step = self._counted(self.model.predict_step)
        # Otherwise built by the first training step; the fence must know the state before it.
        optimizer.build(self.model.trainable_variables)
        prefix = self.model.name + "/"
        self.names = [v.path.removeprefix(prefix) for v in self.model.trainable_variables]
        if set(self.names) != set(case.parameters):
            raise ValueError(f"parameters {sorted(self.names)}, not {sorted(case.parameters)}")
        for name, variable in zip(self.names, self.model.trainable_variables, strict=True):
            variable.assign(case.parameters[name])
        self.state = self.model.weights + optimizer.variables
        self.output = case.objective["output"]
        self.batch = case.batch
        self.sets = [self._arguments(arrays, case.objective["target"]) for arrays in case.sets]
        self.cursor, self.tiles, self.tiled = 0, 0, None

    def _arguments(self, arrays, target):
        inputs = {name: value for name, value in arrays.items() if name != target}
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        return x, arrays[target]

    def _next(self, count=1):
        """Inputs and targets of the next ``count`` input sets, one after the other."""
        first, sets = self.cursor, len(self.sets)
        self.cursor = (first + count) % sets
        if count == 1:
            return self.sets[first]
        if self.tiles < first + count:
            # Enough for any cursor: the slice before the timed one has the same count, so that
            # the timed one only takes views.
            self.tiles = count + sets - 1
            tiles = [self.sets[number % sets] for number in range(self.tiles)]
            self.tiled = self.keras.tree.map_structure(lambda *a: np.concatenate(a), *tiles)
        rows = slice(first * self.batch, (first + count) * self.batch)
        return self.keras.tree.map_structure(lambda a: a[rows], self.tiled)

    def infer(self):
        """``predict_on_batch``, or in the fit modes ``predict`` over one batch; gives NumPy."""
        if self.fits:
            return self.repeat(self.infer, 1)
        x, _ = self._next()
        return {self.output: self.model.predict_on_batch(x)}

    def train_step(self):
        """``train_on_batch`` or, in the fit modes, ``fit`` over one batch; a float comes back."""
        if self.fits:
            return self.repeat(self.train_step, 1)
        return self.model.train_on_batch(*self._next(), return_dict=True)

    def repeat(self, step, count):
        """In the fit modes one ``fit`` (``predict``) over ``count`` batches in the cursor's order.

        The handle then holds the mean of their losses (the outputs of the last batch).
        """
        if not self.fits:
            return super().repeat(step, count)
        x, y = self._next(count)
        if step == self.infer:
            outputs = self.model.predict(x, batch_size=self.batch, verbose=0)
            return {self.output: outputs[-self.batch :]}
        history = self.model.fit(
            x, y, batch_size=self.batch, epochs=1, shuffle=False, verbose=0
        ).history
        return {"loss": history["loss"][0]}

    def gradients(self):
        """By the backend's own means: a gradient tape, ``jax.value_and_grad`` or ``backward``."""
        x, y = self._next()
        loss, gradients = getattr(self, "_gradients_" + self.backend)(x, y)
        named = {"gradient/" + n: g for n, g in zip(self.names, gradients, strict=True)}
        return dict(named, loss=loss)

    def _gradients_tensorflow(self, x, y):
        with self.native.GradientTape() as tape:
            loss = self.criterion(y, self.model(x, training=True))
        return loss, tape.gradient(loss, [v.value for v in self.model.trainable_variables])

    def _gradients_jax(self, x, y):
        def compute_loss(trainable, non_trainable):
            outputs, _ = self.model.stateless_call(trainable, non_trainable, x, training=True)
            return self.criterion(y, outputs)

        return self.native.value_and_grad(compute_loss)(
            [v.value for v in self.model.trainable_variables],
            [v.value for v in self.model.non_trainable_variables],
        )

    def _gradients_torch(self, x, y):
        self.model.zero_grad()
        loss = self.criterion(y, self.model(x, training=True))
        loss.backward()
        return loss, [v.value.grad for v in self.model.trainable_variables]

    def parameters(self):
        """The present values of the trainable variables."""
        variables = zip(self.names, self.model.trainable_variables, strict=True)
        return {"parameter/" + name: variable.value for name, variable in variables}

    def wait(self, handle):
        """Blocks on the updated state under JAX, and on the device where that is a GPU.

        What the handle of a step holds is in NumPy already. On the CPU TensorFlow returns from a
        function, and PyTorch from an operation, when its work is done; JAX may return before.
        """
        if self.backend == "jax":
            self.native.block_until_ready((handle, [v.value for v in self.state]))
        elif self.device == "cuda" and self.backend == "torch":
            self.native.cuda.synchronize()
        elif self.device == "cuda":
            self.native.test.experimental.sync_devices()

    def read(self, handle):
        """A copy: PyTorch shares the memory of a parameter with NumPy."""
        return {name: np.array(self._to_numpy(value)) for name, value in handle.items()}

    def _to_numpy(self, value):
        if isinstance(value, float):
            return value
        return self.keras.ops.convert_to_numpy(value)

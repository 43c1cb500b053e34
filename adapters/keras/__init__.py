"""Keras 3 on its three backends: a compiled model stepped by ``train_on_batch``, or by ``fit``.

Follows https://keras.io/api/models/model_training_apis/ and, for the gate's gradients, the guides
"Writing a training loop from scratch" in TensorFlow, JAX and PyTorch
(https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/, ..._in_jax/, ..._in_torch/).
Inputs are NumPy arrays, as there; copying them into the backend is part of every step.
Out-of-the-box options throughout: channels last, ``jit_compile="auto"``. Layers carry canonical
names, so a variable's path after the model's name is its canonical name, with "_" for "/", where a
layer's own name has to hold what a module elsewhere nests. Axes are canonical but for a GRU's
gates and the kernels of transposed convolutions.

A model of two objectives has a training step of its own, ``training_step(model, optimizers)`` in
its file, and none in the fit modes. Decoding follows the ``make_generate_function`` of Keras' own
language models: one function of the backend around prompt and loop.

The fit modes give a whole slice of steps to one ``fit`` or ``predict``, and so pay its fixed costs
(data set, callbacks, fetching the logs) once a slice; a single step is a ``fit`` over one batch.
"""

import importlib
import os

import numpy as np

from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported

LAYOUT = Layout(
    {("up_height", "up_width", "in", "out"): ("up_height", "up_width", "out", "in")},
    entries={"gru_gate": (1, 0, 2)},  # Keras has z, r, h
)

# What Keras calls otherwise, and the parts of a path that the canonical names do not have.
WORDS = {
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "variance",
    "embeddings": "embedding",
    "attention_output": "out",
}
INNER = ("simple_rnn_cell", "lstm_cell", "gru_cell")
BOTH_BIASES = ("recurrent/bias", "recurrent/recurrent_bias")  # of a GRU: one variable of two rows


def sum_of_cross_entropies(keras):
    """Per example; the divergence is added by the model itself."""

    def loss(labels, logits):
        each = keras.ops.binary_crossentropy(labels, logits, from_logits=True)
        return keras.ops.sum(each, axis=-1)

    return loss


LOSSES = {
    "softmax_cross_entropy": lambda keras: keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    "binary_cross_entropy": lambda keras: keras.losses.BinaryCrossentropy(from_logits=True),
    "evidence_lower_bound": sum_of_cross_entropies,
}

# Keras' Adam folds the bias correction into the step size, so that its epsilon is, as its page says
# (https://keras.io/api/optimizers/adam/), the "epsilon hat" before section 2.1 of Kingma and Ba:
# epsilon * sqrt(1 - beta2^t), which changes with the step t while Keras takes a constant. That of
# step 1 makes the first step, which the gate judges most narrowly, the pinned one, also where
# gradients are as small as epsilon; what it parts later steps by stays far inside their tolerance.
EPSILON_HAT_STEP = 1


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
    """``keras:BACKEND``, ``keras:BACKEND-fit`` and ``keras:tensorflow-tuned``."""

    def __init__(self, device, mode, threads, precision):
        self.device = device
        backend, _, loop = mode.partition("-")
        self.backend, self.fits = backend, loop == "fit"
        # https://keras.io/api/models/model_training_apis/#compile-method
        self.jit_compile = True if loop == "tuned" else "auto"
        os.environ["KERAS_BACKEND"] = backend
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
            "jit_compile": self.jit_compile is True or self.keras.Sequential().jit_compile,
            "image_data_format": self.keras.config.image_data_format(),
            "dtype": self.keras.config.dtype_policy().name,
        }

    def load(self, module, case):
        """A new compiled model, its weights replaced by the case's."""
        if self.fits and len(case.objectives) > 1:
            raise Unsupported("fit has one optimiser; two objectives take a loop of their own")
        self.keras.utils.clear_session()
        self.case, self.module, self.batch = case, module, case.batch
        self.model = module.build(case.sizes)
        make = OPTIMIZERS[case.optimizer["name"]]
        self.variables = self._named_variables()
        for name, value in {**case.parameters, **case.state}.items():
            self._assign(name, value)
        self.trained = {
            each["name"]: {
                name: variable
                for name, variable in self.variables.items()
                if variable.trainable and name.startswith(each["trains"])
            }
            for each in case.objectives
        }
        self.optimizers = {name: make(self.keras, case.optimizer) for name in self.trained}
        for name, optimizer in self.optimizers.items():
            # Otherwise built by the first step; the fence must know the state before it.
            optimizer.build(self._ordered(self.trained[name].values()))
        self._compile(*case.objectives)
        self.state = self.model.weights + [
            variable for each in self.optimizers.values() for variable in each.variables
        ]
        self.sets = [self._arguments(arrays) for arrays in case.sets]
        self.cursor, self.tiles, self.tiled, self.decode = 0, 0, None, None

    def _named_variables(self):
        """Canonical name -> variable."""
        expected = [*self.case.parameters, *self.case.state]
        # GRU: Keras holds both biases in one variable.
        names = {name.replace("/", "_"): name for name in expected}
        found = {}
        for variable in self.model.variables:
            if "seed" in variable.name:
                continue
            parts = [WORDS.get(part, part) for part in variable.path.split("/")]
            if parts[0] == self.model.name:
                del parts[0]
            joined = "_".join(part for part in parts if part not in INNER)
            if joined not in names:
                raise ValueError(f"no array of the case is called {variable.path}")
            found[names[joined]] = variable
        missing = set(expected) - set(found) - {BOTH_BIASES[1]}
        if missing:
            raise ValueError(f"no variable for {sorted(missing)}")
        return found

    def _ordered(self, variables):
        """In the model's own order, which is that of its optimiser."""
        wanted = {id(variable) for variable in variables}
        return [v for v in self.model.trainable_variables if id(v) in wanted]

    def _compile(self, objective, *more):
        if more:
            self.step = self.module.training_step(self.model, self.optimizers)
            self.model.compile()
            return
        loss = LOSSES[objective["loss"]](self.keras)
        if len(self.case.outputs) > 1:
            loss = {objective["outputs"][0]: loss}
        self.model.compile(
            optimizer=self.optimizers[objective["name"]],
            loss=loss,
            jit_compile=self.jit_compile,
        )
        if self.backend == "tensorflow":
            self.compiled = self.compiled or 0
            self.model.train_step = self._counted(self.model.train_step)
            self.model.predict_step = self._counted(self.model.predict_step)

    def _assign(self, name, value):
        value = LAYOUT.to_native(value, self.case.dimensions[name])
        variable = self.variables.get(name)
        if name == BOTH_BIASES[1] and variable is None:
            both = self.variables[BOTH_BIASES[0]]
            first = self.case.parameters[BOTH_BIASES[0]]
            first = LAYOUT.to_native(first, self.case.dimensions[name])
            both.assign(np.stack([first, value]))
        elif name != BOTH_BIASES[0] or BOTH_BIASES[1] not in self.case.parameters:
            variable.assign(value.reshape(variable.shape))

    def _arguments(self, arrays):
        """x and y as Keras wants them; a model of several outputs has the target's by name."""
        inputs = {name: arrays[name] for name in self._inputs()}
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        objective = self.case.objectives[0]
        if len(self.case.objectives) > 1:
            return x, {name: self.keras.ops.convert_to_tensor(v) for name, v in arrays.items()}
        y = arrays[objective["targets"][0]]
        return x, y if len(self.case.outputs) == 1 else {objective["outputs"][0]: y}

    def _inputs(self):
        """Of the model: a sequence's mask makes its length unnecessary."""
        if isinstance(self.model, self.keras.Sequential) and len(self.case.used) > 1:
            return [self.model.inputs[0].name]
        return self.case.used

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
        return self.case.named_outputs(self.model.predict_on_batch(x))

    def train_step(self):
        """``train_on_batch`` or, in the fit modes, ``fit`` over one batch; a float comes back."""
        if self.fits:
            return self.repeat(self.train_step, 1)
        x, y = self._next()
        if len(self.case.objectives) > 1:
            return self.step(y)
        return {"loss": self.model.train_on_batch(x, y, return_dict=True)["loss"]}

    def repeat(self, step, count):
        """In the fit modes one ``fit`` (``predict``) over ``count`` batches in the cursor's order.

        The handle then holds the mean of their losses (the outputs of the last batch).
        """
        if not self.fits:
            return super().repeat(step, count)
        x, y = self._next(count)
        if step == self.infer:
            outputs = self.model.predict(x, batch_size=self.batch, verbose=0)
            last = self.keras.tree.map_structure(lambda a: a[-self.batch :], outputs)
            return self.case.named_outputs(last)
        history = self.model.fit(
            x, y, batch_size=self.batch, epochs=1, shuffle=False, verbose=0
        ).history
        return {"loss": history["loss"][0]}

    def generate(self, count):
        """Prompt and all tokens in one function of the backend."""
        if self.decode is None:
            self.decode = getattr(self, "_decoder_" + self.backend)()
        prompt = self.case.sets[self.cursor][self.case.generation["prompt"]]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return {"tokens": self.decode(prompt, count)}

    def _decoder_tensorflow(self):
        def decode(prompt, count):
            self.compiled += 1
            return self.module.generate(self.model, prompt, count)

        compiled = self.native.function(decode, jit_compile=self.jit_compile is True or None)
        return lambda prompt, count: compiled(self.native.constant(prompt), count)

    def _decoder_jax(self):
        def decode(state, prompt, count):
            mapping = list(zip(self.model.variables, state, strict=True))
            with self.keras.StatelessScope(state_mapping=mapping):
                return self.module.generate(self.model, prompt, count)

        compiled = self.native.jit(decode, static_argnums=2)
        return lambda prompt, count: compiled(
            [variable.value for variable in self.model.variables], prompt, count
        )

    def _decoder_torch(self):
        def decode(prompt, count):
            with self.native.no_grad():
                return self.module.generate(self.model, self.native.from_numpy(prompt), count)

        return decode

    def gradients(self):
        """By the backend's own means: a gradient tape, ``jax.value_and_grad`` or ``backward``.

        Running statistics are put back.
        """
        x, y = self._next()
        statistics = [v for v in self.model.variables if not v.trainable]
        before = [np.array(self.keras.ops.convert_to_numpy(v)) for v in statistics]
        handle = {}
        for name, trained in self.trained.items():
            variables = list(trained.values())
            loss, gradients = getattr(self, "_gradients_" + self.backend)(name, x, y, variables)
            handle[name] = loss
            for key, gradient in zip(trained, gradients, strict=True):
                handle["gradient/" + key] = gradient
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value)
        return handle

    def _loss(self, name, x, y):
        own = getattr(self.module, name, None)
        if own is not None:
            return own(self.model, y)
        outputs = self.model(x, training=True)
        return self.model.compute_loss(x=x, y=y, y_pred=outputs, training=True)

    def _gradients_tensorflow(self, name, x, y, variables):
        with self.native.GradientTape() as tape:
            loss = self._loss(name, x, y)
        none = self.native.UnconnectedGradients.ZERO
        values = [variable.value for variable in variables]
        found = tape.gradient(loss, values, unconnected_gradients=none)
        return loss, [self.native.convert_to_tensor(gradient) for gradient in found]

    def _gradients_jax(self, name, x, y, variables):
        def compute_loss(values):
            mapping = list(zip(variables, values, strict=True))
            with self.keras.StatelessScope(state_mapping=mapping, collect_losses=True):
                return self._loss(name, x, y)

        return self.native.value_and_grad(compute_loss)([v.value for v in variables])

    def _gradients_torch(self, name, x, y, variables):
        self.model.zero_grad()
        loss = self._loss(name, x, y)
        loss.backward()
        zeros = self.native.zeros_like
        found = [v.value.grad for v in variables]
        return loss, [
            zeros(v.value) if gradient is None else gradient
            for v, gradient in zip(variables, found, strict=True)
        ]

    def parameters(self):
        """The present values of the variables."""
        return {
            ("parameter/" if v.trainable else "state/") + name: v.value
            for name, v in self.variables.items()
        }

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
        """Canonical axes; a copy: PyTorch shares the memory of a parameter with NumPy."""
        arrays = {}
        for name, value in handle.items():
            array = np.array(self._to_numpy(value))
            kind, _, rest = name.partition("/")
            if rest == BOTH_BIASES[0] and array.ndim == 2:
                for part, key in zip(array, BOTH_BIASES, strict=True):
                    arrays[kind + "/" + key] = LAYOUT.to_canonical(part, self.case.dimensions[key])
            elif kind in ("parameter", "gradient", "state"):
                arrays[name] = self._canonical(rest, array)
            else:
                arrays[name] = array
        return arrays

    def _canonical(self, name, array):
        """Heads are an axis of their own in attention's kernels."""
        dimensions = self.case.dimensions[name]
        if array.ndim != len(dimensions):
            return array.reshape(self.case.parameters[name].shape)
        return LAYOUT.to_canonical(array, dimensions)

    def _to_numpy(self, value):
        if isinstance(value, float):
            return value
        return self.keras.ops.convert_to_numpy(value)

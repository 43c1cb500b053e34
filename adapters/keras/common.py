"""Keras' part of an adapter, whatever the backend.

Inputs are NumPy arrays, as in Keras' guides. Copying them into the backend is part of every step.
All options are the defaults: channels last, ``jit_compile="auto"``. Layers have canonical names, so
a variable's path after the model's name is its canonical name. Where other frameworks nest modules,
the name of the layer has "_" instead of "/". Axes are canonical, except for a GRU's gates and the
kernels of transposed convolutions.

A model of two objectives has its own training step, ``make_train_step(model, optimizers)`` in its
file, and none in the fit modes. Decoding follows the ``make_generate_function`` of Keras' language
models: one function of the backend around prompt and loop.

The fit modes give a whole slice of steps to one ``fit`` or ``predict``. They thus pay its fixed
costs (data set, callbacks, fetching the logs) once per slice. A single step is a ``fit`` over one
batch.
"""

import numpy as np

from levelfield.adapters.base import Unsupported
from levelfield.adapters.layout import Layout
from levelfield.adapters.on_keras import BOTH_BIASES, OnKeras, make_optimizer

LAYOUT = Layout(
    {("up_height", "up_width", "in", "out"): ("up_height", "up_width", "out", "in")},
    entries={"gru_gate": (1, 0, 2)},  # Keras has z, r, h
)

# Names that differ in Keras, and the parts of a path that the canonical names do not have.
WORDS = {
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "variance",
    "embeddings": "embedding",
    "attention_output": "out",
}
INNER = ("simple_rnn_cell", "lstm_cell", "gru_cell")


def sum_of_cross_entropies(keras):
    """The reconstruction loss per example; the model itself adds the divergence."""

    def loss(labels, logits):
        entropy = keras.ops.binary_crossentropy(labels, logits, from_logits=True)
        return keras.ops.sum(entropy, axis=-1)

    return loss


def softmax_cross_entropy(keras):
    """Make the loss of integer labels."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


LOSSES = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "in_batch_softmax": softmax_cross_entropy,  # whose labels are the numbers of the rows
    "binary_cross_entropy": lambda keras: keras.losses.BinaryCrossentropy(from_logits=True),
    "evidence_lower_bound": sum_of_cross_entropies,
}


class KerasAdapter(OnKeras):
    """``keras:BACKEND``, ``keras:BACKEND-fit`` and ``keras:tensorflow-tuned``.

    A backend's class has ``native`` (the module of the backend), ``backend`` (the class of
    adapters that configures it), ``has_gpu()``, ``decoder()`` and ``loss_and_gradients(name, x, y,
    variables)``.
    """

    layout = LAYOUT
    native = None
    backend = None

    def configure(self):
        """Configure the backend before Keras is imported."""
        _, _, loop = self.mode.partition("-")
        self.fits = loop == "fit"
        # https://keras.io/api/models/model_training_apis/#compile-method
        self.jit_compile = True if loop == "tuned" else "auto"
        self.compiled = None
        self.process = self.backend(self.device, self.mode, self.threads, self.precision)
        import keras

        self.keras = keras
        if self.device == "cuda" and not self.has_gpu():
            raise Unsupported("Keras' backend finds no device of the kind cuda: " + self.mode)

    def compilations(self):
        """Return the backend's count of traces; None where Keras compiles nothing by default."""
        return self.compiled

    def counts(self):
        """Return the backend's counts; where Keras counts its traces itself, their number."""
        return {} if self.compiled is None else {"traces of the step": self.compiled}

    def profile(self, run, folder):
        """Run the steps under the profiler of the backend."""
        return self.process.profile(run, folder)

    def device_memory(self):
        """Return the peak of the backend's allocator."""
        return self.process.device_memory()

    def describe(self):
        """Describe the run as Keras and its backend report it."""
        return {
            "version": self.keras.__version__,
            "threads": self.process.thread_count(),
            "device": self.device,
            "backend": self.keras.backend.backend(),
            "backend_version": self.native.__version__,
            # Resolve "auto" with an empty model, which has nothing that prevents compilation.
            "jit_compile": self.jit_compile is True or self.keras.Sequential().jit_compile,
            "image_data_format": self.keras.config.image_data_format(),
            "dtype": self.keras.config.dtype_policy().name,
        }

    def load(self, module, case):
        """Build and compile a new model, then replace its weights with those of the case."""
        if self.fits and len(case.objectives) > 1:
            raise Unsupported("fit has one optimiser; two objectives take a loop of their own")
        self.keras.utils.clear_session()
        self.begin(module, case, LOSSES)
        self.model = module.build(case.sizes)
        self.variables = self._named_variables()
        held = {name: self.part(name, variable) for name, variable in self.variables.items()}
        for name, value in self.given(held):
            self.assign(name, value)
        self.trained = self.trained_by_each(self.variables)
        self.optimizers = {
            name: make_optimizer(self.keras, case.optimizer) for name in self.trained
        }
        for name, optimizer in self.optimizers.items():
            # The first step would build the optimiser, but the fence needs the state before that.
            optimizer.build(self._ordered(self.trained[name].values()))
        self._compile(*case.objectives)
        self.state = self.model.weights + [
            variable for optimizer in self.optimizers.values() for variable in optimizer.variables
        ]
        self.batches = [self._arguments(arrays) for arrays in self.sets]
        self.tiles, self.tiled, self.decode = 0, None, None

    def _named_variables(self):
        """Map canonical names to variables; Keras holds both biases of a GRU in one."""
        expected = [*self.case.parameters, *self.case.state]
        names = {name.replace("/", "_"): name for name in expected}
        variables = {}
        for variable in self.model.variables:
            if "seed" in variable.name:
                continue
            parts = [WORDS.get(part, part) for part in variable.path.split("/")]
            if parts[0] == self.model.name:
                del parts[0]
            joined = "_".join(part for part in parts if part not in INNER)
            variables[names.get(joined, variable.path)] = variable
        if BOTH_BIASES[1] in expected and BOTH_BIASES[0] in variables:
            variables[BOTH_BIASES[1]] = variables[BOTH_BIASES[0]]
        return variables

    def _ordered(self, variables):
        """Sort variables in the model's own order, which is that of its optimiser."""
        wanted = {id(variable) for variable in variables}
        return [v for v in self.model.trainable_variables if id(v) in wanted]

    def _compile(self, objective, *more):
        if more:
            self.step = self.module.make_train_step(self.model, self.optimizers)
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
        self.after_compile()

    def after_compile(self):
        """A hook for a backend that counts its traces in the model's own steps. Never timed."""

    def value_of(self, name):
        """Return the value of a variable."""
        return self.keras.ops.convert_to_numpy(self.variables[name])

    def set_value(self, name, value):
        """Set a variable."""
        self.variables[name].assign(value)

    def _arguments(self, arrays):
        """Return x and y as Keras expects them; with several outputs, the target has a name."""
        inputs = {name: arrays[name] for name in self._inputs()}
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        objective = self.case.objectives[0]
        if len(self.case.objectives) > 1:
            return x, {name: self.keras.ops.convert_to_tensor(v) for name, v in arrays.items()}
        if objective["targets"]:
            y = arrays[objective["targets"][0]]
        else:  # in-batch softmax: compile and fit want labels
            y = np.arange(self.case.batch, dtype="int32")
        return x, y if len(self.case.outputs) == 1 else {objective["outputs"][0]: y}

    def _inputs(self):
        """Name the model's inputs; a sequence's mask makes its length unnecessary."""
        if isinstance(self.model, self.keras.Sequential) and len(self.case.used) > 1:
            return [self.model.inputs[0].name]
        return self.case.used

    def train_step(self):
        """Call ``train_on_batch``, in the fit modes ``fit`` over one batch -> a float."""
        if self.fits:
            return self.repeat(self.train_step, 1)
        x, y = self.next_batches()
        if len(self.case.objectives) > 1:
            return self.step(y)
        return {"loss": self.model.train_on_batch(x, y, return_dict=True)["loss"]}

    def generate(self, count):
        """Read the prompt and decode all tokens in one function of the backend."""
        if self.decode is None:
            self.decode = self.decoder()
        return {"tokens": self.decode(self.next(self.prompts), count)}

    def gradients(self):
        """Call the backend's gradient tape, ``jax.value_and_grad`` or ``backward``.

        Running statistics are restored afterwards.
        """
        x, y = self.next_batches()
        statistics = [v for v in self.model.variables if not v.trainable]
        before = [np.array(self.keras.ops.convert_to_numpy(v)) for v in statistics]
        handle = {}
        for name, trained in self.trained.items():
            variables = self._ordered(trained.values())
            handle[name], values = self.loss_and_gradients(name, x, y, variables)
            gradients = dict(zip(map(id, variables), values, strict=True))
            for key, variable in trained.items():
                handle["gradient/" + key] = self.part(key, gradients[id(variable)])
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value)
        return handle

    def loss_of(self, name, x, y):
        """Compute the loss of an objective. Never timed."""
        own = getattr(self.module, name, None)
        if own is not None:
            return own(self.model, y)
        outputs = self.model(x, training=True)
        return self.model.compute_loss(x=x, y=y, y_pred=outputs, training=True)

    def parameters(self):
        """Return the present values of the variables."""
        return self.by_kind(
            {n: self.part(n, variable.value) for n, variable in self.variables.items()}
        )

    def to_numpy(self, value):
        """Return a copy: PyTorch shares the memory of a parameter with NumPy."""
        if isinstance(value, (float, np.ndarray)):
            return np.array(value)
        return np.array(self.keras.ops.convert_to_numpy(value))

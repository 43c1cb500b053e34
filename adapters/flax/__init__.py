"""Flax NNX: modules and an ``nnx.Optimizer`` updated in place under ``nnx.jit``.

Follows the MNIST tutorial and "Flax NNX basics": this is the out-of-the-box form, which pays a
walk over the module graph in Python at every call ("Performance considerations" tells how to
avoid it). A model's ``__call__`` takes its inputs by their canonical names. A parameter's path in
the module is its canonical name; members of an ``nnx.List`` count from one: the kernel of
``hidden[0]`` is "hidden1/kernel". Flax's axes are the canonical ones, but for the kernels of
transposed convolutions.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported


def softmax_cross_entropy(logits, labels):
    """Mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def binary_cross_entropy(logits, labels):
    """Mean over the batch."""
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


def evidence_lower_bound(logits, mean, log_variance, target):
    """Its negative, mean over the batch, by hand: optax has no divergence of normals."""
    reconstruction = optax.sigmoid_binary_cross_entropy(logits, target).sum(-1)
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
    return (reconstruction + divergence).mean()


LOSSES = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "evidence_lower_bound": evidence_lower_bound,
}

LAYOUT = Layout({("up_height", "up_width", "in", "out"): ("up_height", "up_width", "out", "in")})

OPTIMIZERS = {
    "sgd": lambda o: optax.sgd(o["learning_rate"]),
    "momentum": lambda o: optax.sgd(o["learning_rate"], momentum=o["momentum"]),
    "adam": lambda o: optax.adam(o["learning_rate"], o["beta1"], o["beta2"], eps=o["epsilon"]),
}


# What flax calls otherwise: a cell's two products within nnx.RNN, and a running variance.
WORDS = {
    "/cell/dense_i/kernel": "/kernel",
    "/cell/dense_h/kernel": "/recurrent_kernel",
    "/cell/dense_i/bias": "/bias",
    "/var": "/variance",
}


def canonical_name(path):
    """("hidden", 0, "kernel") -> "hidden1/kernel"."""
    name = ""
    for part in path:
        name += str(part + 1) if isinstance(part, int) else "/" + part
    for native, word in WORDS.items():
        if name.endswith(native):
            return name[1:].removesuffix(native[1:]) + word[1:]
    return name[1:]


def by_name(state):
    """The variables of an ``nnx.State`` by canonical name."""
    named = {canonical_name(path): variable for path, variable in nnx.to_flat_state(state)}
    hidden = "recurrent/cell/dense_h/bias"
    if hidden in named:
        # The one bias of a cell whose product of the inputs has none, else the second.
        second = "recurrent/bias" in named
        named["recurrent/recurrent_bias" if second else "recurrent/bias"] = named.pop(hidden)
    return named


def trained_by(objective):
    """The filter of the parameters that an objective trains."""
    trains = objective["trains"].rstrip("/")
    return nnx.All(nnx.Param, nnx.PathContains(trains)) if trains else nnx.Param


class Adapter(Base):
    """``flax:jit`` and ``flax:tuned``.

    What is tuned follows "Performance considerations": ``nnx.cached_partial``.
    https://flax.readthedocs.io/en/latest/guides/performance.html
    """

    def __init__(self, device, mode, threads, precision):
        self.tuned = mode == "tuned"
        jax.config.update("jax_platforms", device)
        try:
            self.device = jax.devices(device)[0]
        except RuntimeError as error:
            raise Unsupported("JAX finds no device of the kind " + device) from error
        # No TF32 and no bfloat16 passes; on the CPU it changes nothing.
        jax.config.update("jax_default_matmul_precision", "highest")
        self.compiled = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, duration, **_):
        self.compiled += event.endswith(("jaxpr_trace_duration", "backend_compile_duration"))

    def compilations(self):
        """Traces and backend compilations of the whole process, as JAX reports them.

        https://docs.jax.dev/en/latest/_autosummary/jax.monitoring.html
        """
        return self.compiled

    def device_memory(self):
        """The allocator's peak since the process began: JAX cannot reset it."""
        found = self.device.memory_stats()
        if self.device.platform == "cpu" or not found:
            return None
        return {
            "used_peak_bytes": found.get("peak_bytes_in_use"),
            "reserved_peak_bytes": found.get("peak_pool_bytes"),
        }

    def describe(self):
        """JAX sizes its pool by NPROC and the affinity and cannot read it back."""
        return {
            "version": flax.__version__,
            "threads": None,
            "jax": jax.__version__,
            "optax": optax.__version__,
            "numpy": np.__version__,
            "device": "cuda" if self.device.platform == "gpu" else self.device.platform,
            "compiler": "XLA, " + jax.devices()[0].client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }

    def load(self, module, case):
        """A new module and its optimisers, its variables replaced by the case's arrays."""
        self.case = case
        self.model = module.build(case.sizes)
        self.variables = by_name(nnx.state(self.model, nnx.Param))
        self.statistics = by_name(nnx.state(self.model, nnx.BatchStat))
        held, given = {**self.variables, **self.statistics}, {**case.parameters, **case.state}
        if held.keys() != given.keys():
            raise ValueError(f"arrays {sorted(held)}, not {sorted(given)}")
        for name, variable in held.items():
            value = LAYOUT.to_native(given[name], case.dimensions[name])
            variable.set_value(jnp.array(value.reshape(variable.shape)))

        transformation = OPTIMIZERS[case.optimizer["name"]](case.optimizer)
        objectives = case.objective_functions(module, LOSSES)
        filters = {each["name"]: trained_by(each) for each in case.objectives}
        self.optimizers = nnx.Dict(
            {
                name: nnx.Optimizer(self.model, transformation, wrt=wrt)
                for name, wrt in filters.items()
            }
        )

        def value_and_gradients(name, model, inputs):
            trained = nnx.DiffState(0, filters[name])
            return nnx.value_and_grad(objectives[name], argnums=trained)(model, inputs)

        @nnx.jit
        def predict(model, inputs):
            return model(**inputs)

        @nnx.jit
        def train_step(model, optimizers, inputs):
            losses = {}
            for name in objectives:
                losses[name], gradients = value_and_gradients(name, model, inputs)
                optimizers[name].update(model, gradients)
            return losses

        @nnx.jit
        def losses_and_gradients(model, inputs):
            return {name: value_and_gradients(name, model, inputs) for name in objectives}

        self.predict, self.update = predict, train_step
        self.cached = {}
        self.losses_and_gradients = losses_and_gradients
        if case.generation:
            self.decode = nnx.jit(module.generate, static_argnames="count")

        self.sets = [jax.device_put(arrays) for arrays in case.sets]
        self.used = [{name: arrays[name] for name in case.used} for arrays in self.sets]
        self.cursor, self.training = 0, None
        self._switch(training=False)
        # What the fence blocks on; listed once, so that the fence itself walks no graph.
        states = [nnx.state(self.model), nnx.state(self.optimizers)]
        self.fenced = [variable for state in states for _, variable in nnx.to_flat_state(state)]
        self.wait(self.sets)

    def _switch(self, training):
        """``model.train()`` or ``model.eval()``, where the phase changes."""
        if training != self.training:
            self.training = training
            self.cached = {}  # they know the module as it was
            self.model.train() if training else self.model.eval()

    def _bound(self, function, *modules):
        """The function of what is left to give it."""
        if not self.tuned:
            return functools.partial(function, *modules)
        if function not in self.cached:
            self.cached[function] = nnx.cached_partial(function, *modules)
        return self.cached[function]

    def compile(self, phase):
        """``nnx.jit(...).lower(...).compile()``: the calls of the same function then reuse it."""
        self._switch(training=phase == "training")
        if phase == "inference":
            self.predict.lower(self.model, self.used[0]).compile()
        elif phase == "training":
            self.update.lower(self.model, self.optimizers, self.sets[0]).compile()
        else:
            generation = self.case.generation
            prompt = self.sets[0][generation["prompt"]]
            self.decode.lower(self.model, prompt, count=generation["count"]).compile()
        return True

    def _next(self):
        number = self.cursor
        self.cursor = (number + 1) % len(self.sets)
        return number

    def infer(self):
        """One jitted forward pass."""
        self._switch(training=False)
        predict = self._bound(self.predict, self.model)
        return self.case.named_outputs(predict(self.used[self._next()]))

    def train_step(self):
        """Values, gradients and in-place updates in one jitted function."""
        self._switch(training=True)
        update = self._bound(self.update, self.model, self.optimizers)
        return update(self.sets[self._next()])

    def generate(self, count):
        """Prompt and all tokens in one jitted function."""
        self._switch(training=False)
        prompt = self.sets[self._next()][self.case.generation["prompt"]]
        return {"tokens": self.decode(self.model, prompt, count=count)}

    def gradients(self):
        """``nnx.value_and_grad`` of the same losses; running statistics are put back."""
        self._switch(training=True)
        before = [variable.get_value() for variable in self.statistics.values()]
        handle = {}
        found = self.losses_and_gradients(self.model, self.sets[self._next()])
        for name, (loss, gradients) in found.items():
            handle[name] = loss
            for key, variable in by_name(gradients).items():
                handle["gradient/" + key] = variable.get_value()
        for variable, value in zip(self.statistics.values(), before, strict=True):
            variable.set_value(value)
        return handle

    def parameters(self):
        """The present values of the module's ``nnx.Param`` and ``nnx.BatchStat`` variables."""
        handle = {"parameter/" + n: v.get_value() for n, v in self.variables.items()}
        return dict(handle, **{"state/" + n: v.get_value() for n, v in self.statistics.items()})

    def wait(self, handle):
        """JAX dispatches asynchronously, on the CPU too: block on the results and on the state."""
        jax.block_until_ready((handle, [variable.get_value() for variable in self.fenced]))

    def read(self, handle):
        """JAX arrays to NumPy; heads are an axis of their own in attention's kernels."""
        return {name: self._canonical(name, np.array(value)) for name, value in handle.items()}

    def _canonical(self, name, array):
        kind, _, rest = name.partition("/")
        if kind not in ("parameter", "gradient", "state"):
            return array
        dimensions = self.case.dimensions[rest]
        if array.ndim != len(dimensions):
            return array.reshape(self.case.parameters[rest].shape)
        return LAYOUT.to_canonical(array, dimensions)

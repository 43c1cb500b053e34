"""Flax NNX: modules and an ``nnx.Optimizer`` updated in place under ``nnx.jit``.

Follows the MNIST tutorial and "Flax NNX basics": this is the out-of-the-box form, which pays a
walk over the module graph in Python at every call ("Performance considerations" tells how to
avoid it). A model's ``__call__`` takes its inputs by their canonical names. A parameter's path in
the module is its canonical name; members of an ``nnx.List`` count from one: the kernel of
``hidden[0]`` is "hidden1/kernel". Flax's axes are the canonical ones.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adapters.base import Adapter as Base
from adapters.base import Unsupported


def softmax_cross_entropy(logits, labels):
    """Mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


LOSSES = {"softmax_cross_entropy": softmax_cross_entropy}

OPTIMIZERS = {
    "sgd": lambda o: optax.sgd(o["learning_rate"]),
    "momentum": lambda o: optax.sgd(o["learning_rate"], momentum=o["momentum"]),
    "adam": lambda o: optax.adam(o["learning_rate"], o["beta1"], o["beta2"], eps=o["epsilon"]),
}


def canonical_name(path):
    """("hidden", 0, "kernel") -> "hidden1/kernel"."""
    name = ""
    for part in path:
        name += str(part + 1) if isinstance(part, int) else "/" + part
    return name[1:]


def by_name(state):
    """The variables of an ``nnx.State`` by canonical name."""
    return {canonical_name(path): variable for path, variable in nnx.to_flat_state(state)}


class Adapter(Base):
    """``flax:jit``."""

    def __init__(self, device, mode, threads, precision):
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

    def load(self, build, case):
        """A new module and optimiser, their parameters replaced by the case's."""
        criterion = LOSSES[case.objective["loss"]]
        self.output = case.objective["output"]
        self.model = build(case.sizes)
        self.variables = by_name(nnx.state(self.model, nnx.Param))
        if self.variables.keys() != case.parameters.keys():
            raise ValueError(f"parameters {sorted(self.variables)}, not {sorted(case.parameters)}")
        for name, variable in self.variables.items():
            variable.set_value(jnp.array(case.parameters[name]))
        transformation = OPTIMIZERS[case.optimizer["name"]](case.optimizer)
        self.optimizer = nnx.Optimizer(self.model, transformation, wrt=nnx.Param)

        def compute_loss(model, inputs, target):
            return criterion(model(**inputs), target)

        @nnx.jit
        def predict(model, inputs):
            return model(**inputs)

        @nnx.jit
        def train_step(model, optimizer, inputs, target):
            loss, gradients = nnx.value_and_grad(compute_loss)(model, inputs, target)
            optimizer.update(model, gradients)
            return loss

        self.predict, self.update = predict, train_step
        self.value_and_gradients = nnx.jit(nnx.value_and_grad(compute_loss))

        self.sets = []
        for arrays in case.sets:
            inputs = {name: jax.device_put(value) for name, value in arrays.items()}
            target = inputs.pop(case.objective["target"])
            self.sets.append((inputs, target))
        self.cursor = 0
        # What the fence blocks on; listed once, so that the fence itself walks no graph.
        states = [nnx.state(self.model), nnx.state(self.optimizer)]
        self.fenced = [variable for state in states for _, variable in nnx.to_flat_state(state)]
        self.wait(self.sets)

    def compile(self, phase):
        """``nnx.jit(...).lower(...).compile()``: the calls of the same function then reuse it."""
        inputs, target = self.sets[0]
        if phase == "inference":
            self.predict.lower(self.model, inputs).compile()
        else:
            self.update.lower(self.model, self.optimizer, inputs, target).compile()
        return True

    def _next(self):
        batch = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return batch

    def infer(self):
        """One jitted forward pass."""
        inputs, _ = self._next()
        return {self.output: self.predict(self.model, inputs)}

    def train_step(self):
        """Value, gradients and in-place update in one jitted function."""
        return {"loss": self.update(self.model, self.optimizer, *self._next())}

    def gradients(self):
        """``nnx.value_and_grad`` of the same loss."""
        loss, gradients = self.value_and_gradients(self.model, *self._next())
        named = by_name(gradients)
        return dict({"gradient/" + n: v.get_value() for n, v in named.items()}, loss=loss)

    def parameters(self):
        """The present values of the module's ``nnx.Param`` variables."""
        return {"parameter/" + n: v.get_value() for n, v in self.variables.items()}

    def wait(self, handle):
        """JAX dispatches asynchronously, on the CPU too: block on the results and on the state."""
        jax.block_until_ready((handle, [variable.get_value() for variable in self.fenced]))

    def read(self, handle):
        """JAX arrays to NumPy."""
        return {name: np.array(value) for name, value in handle.items()}

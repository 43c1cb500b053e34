"""JAX: pure functions over a pytree of parameters, jitted; optax for the optimisers.

Follows JAX's own pages on jit, pytrees, ahead-of-time compilation and buffer donation, and optax's
"Getting started". A model is a pure function ``predict(parameters, **inputs)`` whose argument
names are the canonical input names, and whose parameters nest as their canonical names do:
"hidden1/kernel" is ``parameters["hidden1"]["kernel"]``. JAX's axes are the canonical ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def nest(arrays):
    """{"hidden1/kernel": a} -> {"hidden1": {"kernel": a}}."""
    tree = {}
    for name, value in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def flatten(prefix, tree):
    """The inverse of ``nest``, with a prefix before every name."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    named = {}
    for key, value in tree.items():
        named.update(flatten(prefix + "/" + key, value))
    return named


class Adapter(Base):
    """``jax:jit``."""

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
            "version": jax.__version__,
            "threads": None,
            "optax": optax.__version__,
            "numpy": np.__version__,
            "device": "cuda" if self.device.platform == "gpu" else self.device.platform,
            "device_kind": self.device.device_kind,
            "compiler": "XLA, " + self.device.client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }

    def load(self, build, case):
        """Parameters and inputs become arrays of the device, the functions are jitted anew."""
        predict = build(case.sizes)
        objective, criterion = case.objective, LOSSES[case.objective["loss"]]
        optimizer = OPTIMIZERS[case.optimizer["name"]](case.optimizer)

        def compute_loss(parameters, inputs, target):
            return criterion(predict(parameters, **inputs), target)

        def update(parameters, state, inputs, target):
            loss, gradients = jax.value_and_grad(compute_loss)(parameters, inputs, target)
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state, loss

        self.predict = jax.jit(lambda parameters, inputs: predict(parameters, **inputs))
        self.value_and_gradients = jax.jit(jax.value_and_grad(compute_loss))
        self.update = jax.jit(update, donate_argnums=(0, 1))

        self.output = objective["output"]
        # A copy, where device_put may share NumPy's memory: donation may overwrite only our own.
        self.values = nest({name: jnp.array(value) for name, value in case.parameters.items()})
        self.state = optimizer.init(self.values)
        self.sets = []
        for arrays in case.sets:
            inputs = {name: jax.device_put(value) for name, value in arrays.items()}
            target = inputs.pop(objective["target"])
            self.sets.append((inputs, target))
        self.cursor = 0
        jax.block_until_ready((self.values, self.state, self.sets))

    def compile(self, phase):
        """``jit(...).lower(...).compile()``: the calls of the same function then reuse it."""
        inputs, target = self.sets[0]
        if phase == "inference":
            self.predict.lower(self.values, inputs).compile()
        else:
            self.update.lower(self.values, self.state, inputs, target).compile()
        return True

    def _next(self):
        batch = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return batch

    def infer(self):
        """One jitted forward pass."""
        inputs, _ = self._next()
        return {self.output: self.predict(self.values, inputs)}

    def train_step(self):
        """Value, gradients and update in one jitted function, the old state donated to the new."""
        inputs, target = self._next()
        self.values, self.state, loss = self.update(self.values, self.state, inputs, target)
        return {"loss": loss}

    def gradients(self):
        """``jax.value_and_grad`` of the same loss."""
        loss, gradients = self.value_and_gradients(self.values, *self._next())
        return dict(flatten("gradient", gradients), loss=loss)

    def parameters(self):
        """The present pytree by canonical names."""
        return flatten("parameter", self.values)

    def wait(self, handle):
        """JAX dispatches asynchronously, on the CPU too: block on the results and on the state."""
        jax.block_until_ready((handle, self.values, self.state))

    def read(self, handle):
        """A copy: a later step may take the memory of a donated parameter."""
        return {name: np.array(value) for name, value in handle.items()}

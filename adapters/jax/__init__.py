"""JAX: pure functions over pytrees of parameters and state, jitted; optax for the optimisers.

Follows JAX's own pages on jit, pytrees, stateful computations, ahead-of-time compilation and
buffer donation, and optax's "Getting started". A model is a pure function
``predict(parameters, **inputs)`` whose argument names are the canonical input names. Where a
definition has running statistics, it is ``predict(parameters, state, **inputs, training=...)`` and
gives the state back beside its outputs, and an objective of its own is a function
``(parameters, state, inputs) -> (loss, state)``. Both trees nest as the canonical names do:
"hidden1/kernel" is ``parameters["hidden1"]["kernel"]``. JAX's axes are the canonical ones.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adapters.base import Adapter as Base
from adapters.base import Unsupported


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


def part(tree, name):
    """The subtree of an objective that trains only ``name``; all for none."""
    return {name: tree[name]} if name else tree


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

    def load(self, module, case):
        """Parameters and inputs become arrays of the device, the functions are jitted anew."""
        self.case, self.module = case, module
        self.apply = module.build(case.sizes)
        optimizer = OPTIMIZERS[case.optimizer["name"]](case.optimizer)
        objectives = self._objectives()

        def update(parameters, state, slots, inputs):
            losses, kept = {}, {}
            for name, (trains, compute) in objectives.items():
                trained = part(parameters, trains)
                (losses[name], state), gradients = jax.value_and_grad(compute, has_aux=True)(
                    trained, parameters, state, inputs
                )
                updates, kept[name] = optimizer.update(gradients, slots[name], trained)
                parameters = {**parameters, **optax.apply_updates(trained, updates)}
            return parameters, state, kept, losses

        def losses_and_gradients(parameters, state, inputs):
            losses, gradients = {}, {}
            for name, (trains, compute) in objectives.items():
                (losses[name], _), found = jax.value_and_grad(compute, has_aux=True)(
                    part(parameters, trains), parameters, state, inputs
                )
                gradients.update(found)
            return losses, gradients

        self.predict = jax.jit(self._predict)
        self.losses_and_gradients = jax.jit(losses_and_gradients)
        self.update = jax.jit(update, donate_argnums=(0, 1, 2))
        if case.generation:
            self.decode = jax.jit(module.generator(case.sizes), static_argnames="count")

        # A copy, where device_put may share NumPy's memory: donation may overwrite only our own.
        self.values = nest({name: jnp.array(value) for name, value in case.parameters.items()})
        self.state = nest({name: jnp.array(value) for name, value in case.state.items()})
        self.slots = {
            name: optimizer.init(part(self.values, trains))
            for name, (trains, _) in objectives.items()
        }
        self.sets = [jax.device_put(arrays) for arrays in case.sets]
        self.used = [{name: arrays[name] for name in case.used} for arrays in self.sets]
        self.cursor = 0
        jax.block_until_ready((self.values, self.state, self.slots, self.sets))

    def _predict(self, parameters, state, inputs):
        if not self.case.state:
            return self.apply(parameters, **inputs)
        outputs, _ = self.apply(parameters, state, **inputs, training=False)
        return outputs

    def _objectives(self):
        """Name -> (what it trains, ``(trained, parameters, state, inputs) -> (loss, state)``)."""
        standard = self.case.objective_functions(self.module, LOSSES)

        def objective(name):
            own = getattr(self.module, name, None)

            def compute(trained, parameters, state, inputs):
                parameters = {**parameters, **trained}
                if own is not None:
                    return own(parameters, state, inputs)
                if not self.case.state:
                    model = functools.partial(self.apply, parameters)
                    return standard[name](model, inputs), state
                moved = {}

                def model(**used):
                    outputs, new = self.apply(parameters, state, **used, training=True)
                    moved.update(new)
                    return outputs

                return standard[name](model, inputs), moved

            return compute

        return {
            each["name"]: (each["trains"].rstrip("/"), objective(each["name"]))
            for each in self.case.objectives
        }

    def compile(self, phase):
        """``jit(...).lower(...).compile()``: the calls of the same function then reuse it."""
        if phase == "inference":
            self.predict.lower(self.values, self.state, self.used[0]).compile()
        elif phase == "training":
            self.update.lower(self.values, self.state, self.slots, self.sets[0]).compile()
        else:
            generation = self.case.generation
            prompt = self.sets[0][generation["prompt"]]
            self.decode.lower(self.values, prompt, count=generation["count"]).compile()
        return True

    def _next(self):
        number = self.cursor
        self.cursor = (number + 1) % len(self.sets)
        return number

    def infer(self):
        """One jitted forward pass."""
        outputs = self.predict(self.values, self.state, self.used[self._next()])
        return self.case.named_outputs(outputs)

    def train_step(self):
        """Values, gradients and updates in one jitted function; old state is donated to new."""
        self.values, self.state, self.slots, losses = self.update(
            self.values, self.state, self.slots, self.sets[self._next()]
        )
        return losses

    def generate(self, count):
        """Prompt and all tokens in one jitted function."""
        prompt = self.sets[self._next()][self.case.generation["prompt"]]
        return {"tokens": self.decode(self.values, prompt, count=count)}

    def gradients(self):
        """``jax.value_and_grad`` of the same losses."""
        losses, gradients = self.losses_and_gradients(
            self.values, self.state, self.sets[self._next()]
        )
        return dict(flatten("gradient", gradients), **losses)

    def parameters(self):
        """The present pytrees by canonical names."""
        return dict(flatten("parameter", self.values), **flatten("state", self.state))

    def wait(self, handle):
        """JAX dispatches asynchronously, on the CPU too: block on the results and on the state."""
        jax.block_until_ready((handle, self.values, self.state, self.slots))

    def read(self, handle):
        """A copy: a later step may take the memory of a donated parameter."""
        return {name: np.array(value) for name, value in handle.items()}

"""JAX: pure functions over pytrees of parameters and state, jitted; optax for the optimisers.

Follows JAX's pages on jit, pytrees, stateful computations, ahead-of-time compilation and buffer
donation, and optax's "Getting started". A model is a pure function
``predict(parameters, **inputs)`` whose argument names are the canonical input names. Where a
definition has running statistics, the model is
``predict(parameters, state, **inputs, training=...)`` and returns the state with its outputs. A
custom objective is then a function ``(parameters, state, inputs) -> (loss, state)``. A decoder is
``generate(sizes)``, which returns ``decode(parameters, prompt, count)``. The trees of parameters
and state follow the canonical names: "hidden1/kernel" is ``parameters["hidden1"]["kernel"]``.
JAX's axes are the canonical ones.
"""

import functools
from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax

from levelfield.adapters.base import MODEL_FUNCTIONS
from levelfield.adapters.on_jax import OnJax
from levelfield.adapters.with_optax import LOSSES, OPTIMIZERS


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
    """Invert ``nest`` and put a prefix before every name."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    named = {}
    for key, value in tree.items():
        named.update(flatten(prefix + "/" + key, value))
    return named


def part(tree, name):
    """Return the subtree ``name`` that an objective trains; the whole tree without a name."""
    return {name: tree[name]} if name else tree


class Adapter(OnJax):
    """``jax:jit``."""

    model_functions = MappingProxyType({**MODEL_FUNCTIONS, "generate": ("sizes",)})
    objective_arguments = ("parameters", "state", "inputs")

    def describe(self):
        """Describe the run, with the version of optax."""
        return dict(super().describe(), optax=optax.__version__)

    def load(self, module, case):
        """Put parameters and inputs on the device and jit the functions again."""
        self.begin(module, case, LOSSES)
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
                (losses[name], _), own_gradients = jax.value_and_grad(compute, has_aux=True)(
                    part(parameters, trains), parameters, state, inputs
                )
                gradients.update(own_gradients)
            return losses, gradients

        self.predict = jax.jit(self._predict)
        self.losses_and_gradients = jax.jit(losses_and_gradients)
        self.update = jax.jit(update, donate_argnums=(0, 1, 2))
        if case.generation:
            self.decode = jax.jit(module.generate(case.sizes), static_argnames="count")

        # jnp.array copies, whereas device_put may share NumPy's memory. Donation may overwrite
        # only memory of this adapter.
        self.values = nest({name: jnp.array(value) for name, value in case.parameters.items()})
        self.state = nest({name: jnp.array(value) for name, value in case.state.items()})
        self.slots = {
            name: optimizer.init(part(self.values, trains))
            for name, (trains, _) in objectives.items()
        }
        jax.block_until_ready((self.values, self.state, self.slots, self.sets))

    def _predict(self, parameters, state, inputs):
        if not self.case.state:
            return self.apply(parameters, **inputs)
        outputs, _ = self.apply(parameters, state, **inputs, training=False)
        return outputs

    def _objectives(self):
        """Name -> (prefix, ``(trained, parameters, state, inputs) -> (loss, state)``)."""
        standard = self.objectives

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
            trained["name"]: (trained["trains"].rstrip("/"), objective(trained["name"]))
            for trained in self.case.objectives
        }

    def compile(self, phase):
        """Call ``jit(...).lower(...).compile()``; later calls of the function reuse the result."""
        if phase == "inference":
            self.predict.lower(self.values, self.state, self.used[0]).compile()
        elif phase == "training":
            self.update.lower(self.values, self.state, self.slots, self.sets[0]).compile()
        else:
            count = self.case.generation["count"]
            self.decode.lower(self.values, self.prompts[0], count=count).compile()
        return True

    def infer(self):
        """Run one jitted forward pass."""
        outputs = self.predict(self.values, self.state, self.next(self.used))
        return self.case.named_outputs(outputs)

    def train_step(self):
        """Compute losses, gradients and updates in one jitted function; donate the old state."""
        self.values, self.state, self.slots, losses = self.update(
            self.values, self.state, self.slots, self.next(self.sets)
        )
        return losses

    def generate(self, count):
        """Read the prompt and decode all tokens in one jitted function."""
        return {"tokens": self.decode(self.values, self.next(self.prompts), count=count)}

    def gradients(self):
        """Call ``jax.value_and_grad`` on the same losses."""
        losses, gradients = self.losses_and_gradients(self.values, self.state, self.next(self.sets))
        return dict(flatten("gradient", gradients), **losses)

    def parameters(self):
        """Return the present arrays of the pytrees by canonical names."""
        return dict(flatten("parameter", self.values), **flatten("state", self.state))

    def wait(self, handle):
        """Block on the results and the state: JAX dispatches asynchronously, on the CPU too."""
        jax.block_until_ready((handle, self.values, self.state, self.slots))

"""Keras on JAX."""

import jax

from levelfield.adapters import on_jax
from levelfield.adapters.keras.common import KerasAdapter


class OnJax(KerasAdapter):
    """``keras:jax`` and its fit mode."""

    native = jax
    backend = on_jax.OnJax

    def compilations(self):
        """Return JAX's own count."""
        return self.process.compilations()

    def counts(self):
        """Return JAX's own counts."""
        return self.process.counts()

    def has_gpu(self):
        """Whether JAX places its work on a GPU."""
        return jax.default_backend() == "gpu"

    def decoder(self):
        """Wrap prompt and loop in ``jax.jit``; the variables' values are arguments."""

        def decode(state, prompt, count):
            mapping = list(zip(self.model.variables, state, strict=True))
            with self.keras.StatelessScope(state_mapping=mapping):
                return self.module.generate(self.model, prompt, count)

        compiled = jax.jit(decode, static_argnums=2)
        return lambda prompt, count: compiled(
            [variable.value for variable in self.model.variables], prompt, count
        )

    def loss_and_gradients(self, name, x, y, variables):
        """Compute loss and gradients by ``jax.value_and_grad``."""

        def compute_loss(values):
            mapping = list(zip(variables, values, strict=True))
            with self.keras.StatelessScope(state_mapping=mapping, collect_losses=True):
                return self.loss_of(name, x, y)

        return jax.value_and_grad(compute_loss)([v.value for v in variables])

    def wait(self, handle):
        """Block on the handle and on the updated state."""
        jax.block_until_ready((handle, [v.value for v in self.state]))

"""``reference:jax``: the layer namespace under ``jax.jit`` with the reference's own optimisers."""

import jax
import numpy as np

import reference
from adapters.base import Adapter, Unsupported
from reference.layers_jax import JaxLayers
from reference.optimizers import initial_state, update


class JaxAdapter(Adapter):
    """One jitted program for inference and one, with donated buffers, for a training step."""

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("the reference runs on the CPU only")
        jax.config.update("jax_default_matmul_precision", "highest")
        self.compiled = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, duration, **_):
        self.compiled += event.endswith(("jaxpr_trace_duration", "backend_compile_duration"))

    def compilations(self):
        """Traces and backend compilations of the whole process, as JAX reports them."""
        return self.compiled

    def describe(self):
        """JAX takes its threads from the affinity and NPROC and cannot read them back."""
        return {"version": jax.__version__, "threads": None, "numpy": np.__version__}

    def load(self, build, case):
        """The definition's own forward over the case's arrays."""
        self.cursor, self.number = 0, 0
        forward = reference.get(case.model).forward
        optimizer, objective = case.optimizer["name"], case.objective
        self.values = {name: jax.device_put(value) for name, value in case.parameters.items()}
        self.sets = [{n: jax.device_put(v) for n, v in inputs.items()} for inputs in case.sets]
        self.state = initial_state(optimizer, self.values)

        def infer(parameters, inputs):
            return forward(JaxLayers(parameters), case.sizes, inputs)

        def loss(parameters, inputs):
            layers = JaxLayers(parameters)
            outputs = forward(layers, case.sizes, inputs)
            function = getattr(layers, objective["loss"])
            return function(outputs[objective["output"]], inputs[objective["target"]])

        def step(parameters, state, inputs, number):
            value, gradients = jax.value_and_grad(loss)(parameters, inputs)
            moved, state = update(optimizer, parameters, gradients, state=state, step=number)
            return moved, state, value

        self.forward = jax.jit(infer)
        self.value_and_gradient = jax.jit(jax.value_and_grad(loss))
        self.step = jax.jit(step, donate_argnums=(0, 1))
        jax.block_until_ready((self.values, self.sets, self.state))

    def compile(self, phase):
        """``jit(...).lower(...).compile()``; later calls of the jitted function reuse it."""
        if phase == "inference":
            self.forward.lower(self.values, self.sets[0]).compile()
        else:
            self.step.lower(self.values, self.state, self.sets[0], 1).compile()
        return True

    def _next(self):
        inputs = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return inputs

    def infer(self):
        """Forward pass."""
        return self.forward(self.values, self._next())

    def train_step(self):
        """Value, gradients and update in one program."""
        self.number += 1
        self.values, self.state, loss = self.step(
            self.values, self.state, self._next(), self.number
        )
        return {"loss": loss}

    def gradients(self):
        """Loss and gradients."""
        loss, gradients = self.value_and_gradient(self.values, self._next())
        return dict({"gradient/" + n: g for n, g in gradients.items()}, loss=loss)

    def parameters(self):
        """Already under their canonical names."""
        return {"parameter/" + name: value for name, value in self.values.items()}

    def wait(self, handle):
        """Blocks on the handle and on the updated parameters and optimiser state."""
        jax.block_until_ready((handle, self.values, self.state))

    def read(self, handle):
        """Already canonical."""
        return {name: np.asarray(value) for name, value in handle.items()}

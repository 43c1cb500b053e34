"""``reference:jax``: the layer namespace under ``jax.jit`` with the reference's own optimisers."""

import jax
import numpy as np

import reference
from adapters.base import Adapter, Unsupported
from reference import programs


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

    def load(self, module, case):
        """The definition's own programs over the case's arrays."""
        self.cursor, self.number = 0, 0
        model, optimizer = reference.get(case.model), case.optimizer["name"]
        self.values = {name: jax.numpy.array(value) for name, value in case.parameters.items()}
        self.state = {name: jax.numpy.array(value) for name, value in case.state.items()}
        self.sets = [{n: jax.device_put(v) for n, v in inputs.items()} for inputs in case.sets]
        self.slots = programs.initial_slots(model, optimizer, self.values)
        self.used, self.generation = case.used, case.generation

        self.forward = jax.jit(programs.inference(model, case.sizes))
        self.losses_and_gradients = jax.jit(programs.losses_and_gradients(model, case.sizes))
        step = programs.training_step(model, case.sizes, optimizer)
        self.step = jax.jit(step, donate_argnums=(0, 1, 2))
        if case.generation:
            begin, further = programs.generation(model, case.sizes)
            self.begin, self.further = jax.jit(begin), jax.jit(further, donate_argnums=3)
        jax.block_until_ready((self.values, self.state, self.sets, self.slots))

    def compile(self, phase):
        """``jit(...).lower(...).compile()``; later calls of the jitted function reuse it."""
        inputs = self.sets[0]
        if phase == "inference":
            self.forward.lower(self.values, self.state, self._used(inputs)).compile()
        elif phase == "training":
            self.step.lower(self.values, self.state, self.slots, inputs, 1).compile()
        else:
            return False
        return True

    def _next(self):
        inputs = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return inputs

    def _used(self, inputs):
        return {name: inputs[name] for name in self.used}

    def infer(self):
        """Forward pass."""
        return self.forward(self.values, self.state, self._used(self._next()))

    def train_step(self):
        """Values, gradients and updates in one program."""
        self.number += 1
        self.values, self.state, self.slots, losses = self.step(
            self.values, self.state, self.slots, self._next(), self.number
        )
        return losses

    def generate(self, count):
        """The prompt, then one token after the other from Python, the cache donated."""
        prompt = self._next()[self.generation["prompt"]]
        token, cache = self.begin(self.values, prompt)
        tokens = [token]
        for position in range(prompt.shape[1], prompt.shape[1] + count - 1):
            token, cache = self.further(self.values, token, position, cache)
            tokens.append(token)
        return {"tokens": jax.numpy.stack(tokens, 1)}

    def gradients(self):
        """Losses and gradients."""
        losses, gradients = self.losses_and_gradients(self.values, self.state, self._next())
        return dict({"gradient/" + n: g for n, g in gradients.items()}, **losses)

    def parameters(self):
        """Already under their canonical names."""
        named = {"parameter/" + name: value for name, value in self.values.items()}
        return dict(named, **{"state/" + name: value for name, value in self.state.items()})

    def wait(self, handle):
        """Blocks on the handle and on the updated parameters, statistics and optimiser state."""
        jax.block_until_ready((handle, self.values, self.state, self.slots))

    def read(self, handle):
        """Already canonical; a copy, since a later step may take the memory."""
        return {name: np.array(value) for name, value in handle.items()}

"""``reference:jax``: the layer namespace under ``jax.jit`` with the reference's own optimisers."""

import jax

from levelfield import reference
from levelfield.adapters.on_jax import OnJax
from levelfield.reference import programs


class JaxAdapter(OnJax):
    """One jitted program for inference, and one with donated buffers for a training step."""

    no_gpu = "the reference runs on the CPU only"

    def load(self, module, case):
        """Jit the definition's programs and place the case's arrays."""
        self.begin(module, case)
        self.number = 0
        model, optimizer = reference.get(case.model), case.optimizer["name"]
        self.values = {name: jax.numpy.array(value) for name, value in case.parameters.items()}
        self.state = {name: jax.numpy.array(value) for name, value in case.state.items()}
        self.slots = programs.initial_slots(model, optimizer, self.values)

        self.forward = jax.jit(programs.inference(model, case.sizes))
        self.losses_and_gradients = jax.jit(programs.losses_and_gradients(model, case.sizes))
        step = programs.training_step(model, case.sizes, optimizer)
        self.step = jax.jit(step, donate_argnums=(0, 1, 2))
        if case.generation:
            self.generation = model.generation
            first, further = programs.generation(model, case.sizes)
            self.first, self.further = jax.jit(first), jax.jit(further, donate_argnums=3)
        jax.block_until_ready((self.values, self.state, self.sets, self.slots))

    def compile(self, phase):
        """Call ``jit(...).lower(...).compile()``; later calls of the function reuse the result."""
        if phase == "inference":
            self.forward.lower(self.values, self.state, self.used[0]).compile()
        elif phase == "training":
            self.step.lower(self.values, self.state, self.slots, self.sets[0], 1).compile()
        else:
            return False
        return True

    def infer(self):
        """Run the forward pass."""
        return self.forward(self.values, self.state, self.next(self.used))

    def train_step(self):
        """Compute losses, gradients and updates in one program."""
        self.number += 1
        self.values, self.state, self.slots, losses = self.step(
            self.values, self.state, self.slots, self.next(self.sets), self.number
        )
        return losses

    def generate(self, count):
        """Run the prompt, then one token after the other from Python; the cache is donated."""
        prompt = self.next(self.prompts)
        token, cache = self.first(self.values, prompt)
        tokens = [token]
        length = self.generation.first_length(prompt.shape[1])
        for position in range(length, length + count - 1):
            token, cache = self.further(self.values, token, position, cache)
            tokens.append(token)
        return {"tokens": jax.numpy.stack(tokens, 1)}

    def gradients(self):
        """Compute losses and gradients."""
        losses, gradients = self.losses_and_gradients(self.values, self.state, self.next(self.sets))
        return dict({"gradient/" + n: g for n, g in gradients.items()}, **losses)

    def parameters(self):
        """Return the parameters, which have their canonical names already."""
        return self.by_kind({**self.values, **self.state})

    def wait(self, handle):
        """Block on the handle and on updated parameters, statistics and optimiser state."""
        jax.block_until_ready((handle, self.values, self.state, self.slots))

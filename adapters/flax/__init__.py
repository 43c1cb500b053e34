"""Flax NNX: modules and an ``nnx.Optimizer`` updated in place under ``nnx.jit``.

Follows the MNIST tutorial and "Flax NNX basics". This is the out-of-the-box form: it walks over the
module graph in Python at every call ("Performance considerations" explains how to avoid this). A
model's ``__call__`` takes its inputs by their canonical names. A parameter's path in the module is
its canonical name. Members of an ``nnx.List`` count from one: the kernel of ``hidden[0]`` is
"hidden1/kernel". Flax's axes are the canonical ones, except for the kernels of transposed
convolutions.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from levelfield.adapters.base import canonical_name as joined
from levelfield.adapters.layout import Layout
from levelfield.adapters.on_jax import OnJax
from levelfield.adapters.with_optax import LOSSES, OPTIMIZERS

LAYOUT = Layout({("up_height", "up_width", "in", "out"): ("up_height", "up_width", "out", "in")})

# Names that differ in flax: a cell's two products within nnx.RNN, and a running variance.
WORDS = {
    "/cell/dense_i/kernel": "/kernel",
    "/cell/dense_h/kernel": "/recurrent_kernel",
    "/cell/dense_i/bias": "/bias",
    "/var": "/variance",
}


def canonical_name(path):
    """("hidden", 0, "kernel") -> "hidden1/kernel"."""
    name = joined(path)
    for native, word in WORDS.items():
        if name.endswith(native):
            return name.removesuffix(native) + word
    return name


def by_name(state):
    """Return the variables of an ``nnx.State`` by canonical name."""
    named = {canonical_name(path): variable for path, variable in nnx.to_flat_state(state)}
    hidden = "recurrent/cell/dense_h/bias"
    if hidden in named:
        # The only bias where the product of the inputs has none, else the second bias.
        second = "recurrent/bias" in named
        named["recurrent/recurrent_bias" if second else "recurrent/bias"] = named.pop(hidden)
    return named


def trained_by(objective):
    """Return a filter for the parameters that an objective trains."""
    trains = objective["trains"].rstrip("/")
    return nnx.All(nnx.Param, nnx.PathContains(trains)) if trains else nnx.Param


class Adapter(OnJax):
    """``flax:jit`` and ``flax:tuned``.

    The tuned mode follows "Performance considerations": ``nnx.cached_partial``.
    https://flax.readthedocs.io/en/latest/guides/performance.html
    """

    layout = LAYOUT

    def describe(self):
        """Describe the run, with the versions of JAX and optax."""
        return dict(
            super().describe(),
            version=flax.__version__,
            jax=jax.__version__,
            optax=optax.__version__,
        )

    def load(self, module, case):
        """Build a module and its optimisers; replace its variables by the case's arrays."""
        self.begin(module, case, LOSSES)
        self.model = module.build(case.sizes)
        self.variables = by_name(nnx.state(self.model, nnx.Param))
        self.statistics = by_name(nnx.state(self.model, nnx.BatchStat))
        held = {**self.variables, **self.statistics}
        for name, value in self.given(held):
            held[name].set_value(jnp.array(value))

        transformation = OPTIMIZERS[case.optimizer["name"]](case.optimizer)
        objectives = self.objectives
        filters = {objective["name"]: trained_by(objective) for objective in case.objectives}
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

        self.training = None
        self._switch(training=False)
        # The fence blocks on these. They are listed once, so that the fence walks no graph.
        states = [nnx.state(self.model), nnx.state(self.optimizers)]
        self.fenced = [variable for state in states for _, variable in nnx.to_flat_state(state)]
        self.wait(self.sets)

    def _switch(self, training):
        """Call ``model.train()`` or ``model.eval()`` where the phase changes."""
        if training != self.training:
            self.training = training
            self.cached = {}  # cached functions hold the module before the change
            self.model.train() if training else self.model.eval()

    def _bound(self, function, *modules):
        """Bind the modules; the result takes the remaining arguments."""
        if self.mode != "tuned":
            return functools.partial(function, *modules)
        if function not in self.cached:
            self.cached[function] = nnx.cached_partial(function, *modules)
        return self.cached[function]

    def compile(self, phase):
        """Call ``nnx.jit(...).lower(...).compile()``; later calls of the function reuse it."""
        self._switch(training=phase == "training")
        if phase == "inference":
            self.predict.lower(self.model, self.used[0]).compile()
        elif phase == "training":
            self.update.lower(self.model, self.optimizers, self.sets[0]).compile()
        else:
            count = self.case.generation["count"]
            self.decode.lower(self.model, self.prompts[0], count=count).compile()
        return True

    def infer(self):
        """Run one jitted forward pass."""
        self._switch(training=False)
        predict = self._bound(self.predict, self.model)
        return self.case.named_outputs(predict(self.next(self.used)))

    def train_step(self):
        """Compute values, gradients and in-place updates in one jitted function."""
        self._switch(training=True)
        update = self._bound(self.update, self.model, self.optimizers)
        return update(self.next(self.sets))

    def generate(self, count):
        """Read the prompt and decode all tokens in one jitted function."""
        self._switch(training=False)
        return {"tokens": self.decode(self.model, self.next(self.prompts), count=count)}

    def gradients(self):
        """Call ``nnx.value_and_grad`` on the same losses, then restore running statistics."""
        self._switch(training=True)
        before = [variable.get_value() for variable in self.statistics.values()]
        handle = {}
        results = self.losses_and_gradients(self.model, self.next(self.sets))
        for name, (loss, gradients) in results.items():
            handle[name] = loss
            for key, variable in by_name(gradients).items():
                handle["gradient/" + key] = variable.get_value()
        for variable, value in zip(self.statistics.values(), before, strict=True):
            variable.set_value(value)
        return handle

    def parameters(self):
        """Return the present values of all ``nnx.Param`` and ``nnx.BatchStat`` variables."""
        held = {**self.variables, **self.statistics}
        return self.by_kind({name: variable.get_value() for name, variable in held.items()})

    def wait(self, handle):
        """Block on the results and the state: JAX dispatches asynchronously, on the CPU too."""
        jax.block_until_ready((handle, [variable.get_value() for variable in self.fenced]))

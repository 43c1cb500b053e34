"""The layers in JAX, traced under ``jax.jit``, with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from levelfield.reference.spec import BATCH_NORM_EPSILON, BATCH_NORM_NEW, sinusoid_table
from levelfield.reference.windows import adaptive_windows, rows_beyond

LAYOUT = ("NHWC", "HWIO", "NHWC")


class JaxLayers:
    """Layers over a mapping of parameters, ``{"hidden1/kernel": (in, out), ...}``, and of state.

    ``training``: batch norm uses the batch's statistics and writes new running statistics to
    ``state``, a separate mapping. A running "unbiased_variance", which some frameworks keep, is
    updated where ``state`` has one.
    """

    def __init__(
        self,
        parameters: Mapping[str, jax.Array],
        state: Mapping[str, jax.Array] | None = None,
        *,
        training: bool = False,
    ) -> None:
        self.parameters = parameters
        self.state = dict(state or {})
        self.training = training

    def dense(self, x: jax.Array, name: str, units: int) -> jax.Array:
        """``x @ kernel + bias``."""
        return x @ self.parameters[f"{name}/kernel"] + self.parameters[f"{name}/bias"]

    def conv2d(
        self,
        x: jax.Array,
        name: str,
        filters: int,
        *,
        window: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> jax.Array:
        """Cross-correlation by ``lax.conv_general_dilated``."""
        kernel = self.parameters[f"{name}/kernel"]
        if x.dtype == jnp.float64:
            out = _conv_by_products(x, kernel, stride, padding)
        else:
            sides = ((padding, padding), (padding, padding))
            out = lax.conv_general_dilated(
                x, kernel, (stride, stride), sides, dimension_numbers=LAYOUT
            )
        return out + self.parameters[f"{name}/bias"] if bias else out

    def conv2d_transpose(
        self, x: jax.Array, name: str, filters: int, *, window: int, stride: int, padding: int
    ) -> jax.Array:
        """A convolution of the dilated input with the turned kernel."""
        around = window - 1 - padding
        kernel = self.parameters[f"{name}/kernel"][::-1, ::-1]
        if x.dtype == jnp.float64:
            batch, height, width, channel = x.shape
            shape = (batch, (height - 1) * stride + 1, (width - 1) * stride + 1, channel)
            spread = jnp.zeros(shape, x.dtype).at[:, ::stride, ::stride].set(x)
            return _conv_by_products(spread, kernel, 1, around)
        sides, apart = ((around, around), (around, around)), (stride, stride)
        return lax.conv_general_dilated(
            x, kernel, (1, 1), sides, lhs_dilation=apart, dimension_numbers=LAYOUT
        )

    def batch_norm(self, x: jax.Array, name: str) -> jax.Array:
        """Normalise by the batch's statistics in training, else by the running statistics."""
        mean, variance = self.state[f"{name}/mean"], self.state[f"{name}/variance"]
        if self.training:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            count = x.size // x.shape[-1]
            for key, new in {
                "mean": mean,
                "variance": variance,
                "unbiased_variance": variance * count / (count - 1),
            }.items():
                if f"{name}/{key}" in self.state:
                    old = self.state[f"{name}/{key}"]
                    self.state[f"{name}/{key}"] = old + BATCH_NORM_NEW * (new - old)
        scale = self.parameters[f"{name}/scale"] * lax.rsqrt(variance + BATCH_NORM_EPSILON)
        return (x - mean) * scale + self.parameters[f"{name}/bias"]

    def layer_norm(self, x: jax.Array, name: str, *, epsilon: float) -> jax.Array:
        """Normalise by mean and biased variance of the last dimension."""
        normal = jax.nn.standardize(x, epsilon=epsilon)
        return normal * self.parameters[f"{name}/scale"] + self.parameters[f"{name}/bias"]

    def embed(self, ids: jax.Array, name: str, *, count: int, width: int) -> jax.Array:
        """Rows of the table."""
        return self.parameters[f"{name}/embedding"][ids]

    def first_embeddings(self, like: jax.Array, name: str, *, count: int) -> jax.Array:
        """The first rows of the table."""
        return self.parameters[f"{name}/embedding"][: like.shape[1]]

    def real(self, tokens: jax.Array) -> jax.Array:
        """1 where a token is not 0."""
        return (tokens != 0).astype(jnp.int32)

    def sinusoids(self, like: jax.Array, *, position: Any = 0, count: int = 0) -> jax.Array:
        """Rows of the table."""
        _, time, width = like.shape
        table = jnp.asarray(sinusoid_table(count or time, width), like.dtype)
        return lax.dynamic_slice_in_dim(table, position, time)

    def project_to_embedding(self, x: jax.Array, name: str, *, bias: str = "") -> jax.Array:
        """Multiply by the transposed table."""
        out = x @ self.parameters[f"{name}/embedding"].T
        return out + self.parameters[f"{bias}/bias"] if bias else out

    def recurrent(
        self, x: jax.Array, lengths: jax.Array, name: str, *, units: int, cell: str
    ) -> jax.Array:
        """Run ``lax.scan`` over time.

        Both products are inside the loop. One product of all inputs before the loop, whose slices
        the loop would read, takes more than twice as long under XLA on the CPU (a GRU of 128 units,
        batch 32).
        """
        kernel, bias = self.parameters[f"{name}/kernel"], self.parameters[f"{name}/bias"]
        recurrent_kernel = self.parameters[f"{name}/recurrent_kernel"]
        start = (jnp.zeros((x.shape[0], units), x.dtype),) * (2 if cell == "lstm" else 1)

        def step(state: Any, now: Any) -> tuple[Any, None]:
            inputs, time = now
            from_state = state[0] @ recurrent_kernel
            if cell == "gru":
                from_state = from_state + self.parameters[f"{name}/recurrent_bias"]
            moved = CELLS[cell](inputs @ kernel + bias, from_state, state)
            goes_on = (time < lengths)[:, None]
            return tuple(
                jnp.where(goes_on, new, old) for new, old in zip(moved, state, strict=True)
            ), None

        times = jnp.arange(x.shape[1])
        state, _ = lax.scan(step, start, (x.swapaxes(0, 1), times))
        last: jax.Array = state[0]
        return last

    def attention(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        heads: int,
        mask: jax.Array | None = None,
        causal: bool = False,
    ) -> jax.Array:
        """Attention: softmax of the scaled products over the keys that count."""
        seen = None if mask is None else mask[:, None, None] == 1
        if causal:
            time = jnp.arange(query.shape[1])
            earlier = time[None, None, None] <= time[:, None]
            seen = earlier if seen is None else earlier & seen
        return _attend(query, key, value, heads, seen)

    def empty_cache(self, batch: int, time: int, width: int) -> tuple[jax.Array, jax.Array]:
        """Room for the keys and values of ``time`` positions."""
        dtype = next(iter(self.parameters.values())).dtype
        return (jnp.zeros((batch, time, width), dtype), jnp.zeros((batch, time, width), dtype))

    def cached_attention(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        heads: int,
        position: Any,
        cache: tuple[jax.Array, jax.Array],
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Causal attention of new positions over the cache and themselves, and the new cache."""
        keys, values = (
            lax.dynamic_update_slice(old, new, (0, position, 0))
            for old, new in zip(cache, (key, value), strict=True)
        )
        times = jnp.arange(keys.shape[1])
        seen = times[None, None, None] <= (position + jnp.arange(query.shape[1]))[:, None]
        return _attend(query, keys, values, heads, seen), (keys, values)

    def embeddings_from(self, name: str, position: Any, time: int) -> jax.Array:
        """Rows ``position`` to ``position + time`` of a table."""
        table = self.parameters[f"{name}/embedding"]
        return lax.dynamic_slice_in_dim(table, position, time)

    def last(self, x: jax.Array) -> jax.Array:
        """(batch, time, width) -> (batch, width), the last position."""
        return x[:, -1]

    def most_likely(self, logits: jax.Array) -> jax.Array:
        """(batch, vocabulary) -> (batch,), integers."""
        return logits.argmax(-1).astype(jnp.int32)

    def max_pool2d(
        self, x: jax.Array, *, window: int, stride: int = 0, padding: int = 0, ceil: bool = False
    ) -> jax.Array:
        """Maximum over windows."""
        step = stride or window
        beyond = (rows_beyond(size, window, step, padding, ceil=ceil) for size in x.shape[1:3])
        height, width = ((padding, padding + more) for more in beyond)
        return jnp.asarray(
            lax.reduce_window(
                x,
                -jnp.inf,
                lax.max,
                (1, window, window, 1),
                (1, step, step, 1),
                ((0, 0), height, width, (0, 0)),
            )
        )

    def mean_pool2d(self, x: jax.Array) -> jax.Array:
        """Mean over height and width."""
        return x.mean((1, 2))

    def adaptive_mean_pool2d(self, x: jax.Array, side: int) -> jax.Array:
        """Mean over each window's rows, then over its columns."""
        rows, columns = (adaptive_windows(size, side) for size in x.shape[1:3])
        x = jnp.stack([x[:, begin:end].mean(1) for begin, end in rows], 1)
        return jnp.stack([x[:, :, begin:end].mean(2) for begin, end in columns], 2)

    def relu(self, x: jax.Array) -> jax.Array:
        """max(x, 0); the gradient at 0 is 0, as in all frameworks."""
        return jax.nn.relu(x)

    def leaky_relu(self, x: jax.Array, slope: float) -> jax.Array:
        """x where positive, else slope x."""
        return jax.nn.leaky_relu(x, slope)

    def gelu(self, x: jax.Array) -> jax.Array:
        """GELU by the error function."""
        return jax.nn.gelu(x, approximate=False)

    def gelu_tanh(self, x: jax.Array) -> jax.Array:
        """GELU by the tanh approximation."""
        return jax.nn.gelu(x, approximate=True)

    def tanh(self, x: jax.Array) -> jax.Array:
        """Hyperbolic tangent."""
        return jnp.tanh(x)

    def exp(self, x: jax.Array) -> jax.Array:
        """Exponential."""
        return jnp.exp(x)

    def scale(self, x: jax.Array, factor: float) -> jax.Array:
        """factor x."""
        return factor * x

    def add(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """x + y."""
        return x + y

    def multiply(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """x y."""
        return x * y

    def normalize(self, x: jax.Array) -> jax.Array:
        """x / |x|."""
        return jnp.asarray(x / jnp.linalg.norm(x, axis=-1, keepdims=True))

    def match(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """x y^T."""
        return x @ y.T

    def concatenate(self, *arrays: jax.Array) -> jax.Array:
        """Concatenate along the last dimension."""
        return jnp.concatenate(arrays, -1)

    def take(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Take rows of every example."""
        return jnp.take_along_axis(x, positions[:, :, None], axis=1)

    def first(self, x: jax.Array) -> jax.Array:
        """Take the first position."""
        return x[:, 0]

    def flatten(self, x: jax.Array) -> jax.Array:
        """Merge all dimensions but the batch into one."""
        return x.reshape(x.shape[0], -1)

    def softmax_cross_entropy(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean of the log of the sum of exponentials, minus the logit of the label."""
        chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()

    def in_batch_softmax(self, logits: jax.Array) -> jax.Array:
        """Softmax cross-entropy; the label of each row is its own number."""
        return self.softmax_cross_entropy(logits, jnp.arange(logits.shape[0]))

    def binary_cross_entropy(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean of log(1 + exp(x)) - x label."""
        return (jax.nn.softplus(logits) - logits * labels).mean()

    def evidence_lower_bound(
        self, logits: jax.Array, mean: jax.Array, log_variance: jax.Array, target: jax.Array
    ) -> jax.Array:
        """Reconstruction and divergence, each a sum per example."""
        reconstruction = (jax.nn.softplus(logits) - logits * target).sum(-1)
        divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
        return (reconstruction + divergence).mean()

    def real_and_fake(self, real: jax.Array, fake: jax.Array) -> jax.Array:
        """Binary cross-entropy of real against 1 plus fake against 0."""
        return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()

    def fooled(self, fake: jax.Array) -> jax.Array:
        """Binary cross-entropy of fake against 1."""
        return jax.nn.softplus(-fake).mean()


def _conv_by_products(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """A convolution for float64: XLA on the CPU has a fast one only for float32."""
    window, filters = kernel.shape[0], kernel.shape[3]
    sides = (padding, padding)
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)))
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    shifted = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    windows = jnp.concatenate(shifted, -1)
    return windows @ kernel.reshape(-1, filters)


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, heads: int, seen: jax.Array | None
) -> jax.Array:
    query, key, value = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query / np.sqrt(query.shape[-1]), key)
    if seen is not None:
        scores = jnp.where(seen, scores, np.finfo(scores.dtype).min)
    out = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
    return out.reshape(*out.shape[:2], -1)


def _rnn(from_inputs: jax.Array, from_state: jax.Array, state: Any) -> tuple[jax.Array, ...]:
    return (jnp.tanh(from_inputs + from_state),)


def _lstm(from_inputs: jax.Array, from_state: jax.Array, state: Any) -> tuple[jax.Array, ...]:
    i, f, g, o = jnp.split(from_inputs + from_state, 4, axis=-1)
    memory = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(memory), memory


def _gru(from_inputs: jax.Array, from_state: jax.Array, state: Any) -> tuple[jax.Array, ...]:
    (r, z, n), (r_state, z_state, n_state) = (
        jnp.split(x, 3, axis=-1) for x in (from_inputs, from_state)
    )
    update = jax.nn.sigmoid(z + z_state)
    candidate = jnp.tanh(n + jax.nn.sigmoid(r + r_state) * n_state)
    return ((1 - update) * candidate + update * state[0],)


CELLS = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}


def timed_product(square: NDArray[np.float32]) -> None:
    """Run one matrix product by XLA to its end; it serves to measure the machine."""
    _product(square).block_until_ready()


_product = jax.jit(lambda square: square @ square)

"""The layers in NumPy: written to be checked by eye, run in float64 as the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import erf, expit  # type: ignore[import-untyped]

from levelfield.reference.spec import BATCH_NORM_EPSILON, sinusoid_table
from levelfield.reference.windows import adaptive_windows, rows_beyond

Values = NDArray[Any]


class NumpyLayers:
    """Layers over a mapping of parameters, ``{"hidden1/kernel": (in, out), ...}``, and of state.

    The dtype of the parameters and inputs is the dtype of the computation. NumPy has no gradients,
    so batch norm is that of inference.
    """

    def __init__(
        self, parameters: Mapping[str, Values], state: Mapping[str, Values] | None = None
    ) -> None:
        self.parameters = parameters
        self.state = state or {}

    def dense(self, x: Values, name: str, units: int) -> Values:
        """``x @ kernel + bias``."""
        return x @ self.parameters[f"{name}/kernel"] + self.parameters[f"{name}/bias"]

    def conv2d(
        self,
        x: Values,
        name: str,
        filters: int,
        *,
        window: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> Values:
        """Cross-correlation as a product of all windows with the kernel."""
        sides = (padding, padding)
        x = np.pad(x, ((0, 0), sides, sides, (0, 0)))
        windows = sliding_window_view(x, (window, window), axis=(1, 2))[:, ::stride, ::stride]
        # windows: (batch, height, width, in, window, window); kernel: (window, window, in, out)
        out = np.tensordot(windows, self.parameters[f"{name}/kernel"], axes=((4, 5, 3), (0, 1, 2)))
        return out + self.parameters[f"{name}/bias"] if bias else out

    def conv2d_transpose(
        self, x: Values, name: str, filters: int, *, window: int, stride: int, padding: int
    ) -> Values:
        """Every input pixel spreads its kernel over the output."""
        batch, height, width, _ = x.shape
        shape = (batch, (height - 1) * stride + window, (width - 1) * stride + window, filters)
        out = np.zeros(shape, x.dtype)
        spread = np.tensordot(x, self.parameters[f"{name}/kernel"], axes=((3,), (2,)))
        for row in range(window):
            for column in range(window):
                rows = slice(row, row + (height - 1) * stride + 1, stride)
                columns = slice(column, column + (width - 1) * stride + 1, stride)
                out[:, rows, columns] += spread[:, :, :, row, column]
        return out[:, padding : shape[1] - padding, padding : shape[2] - padding]

    def batch_norm(self, x: Values, name: str) -> Values:
        """Normalise by the running statistics."""
        deviation = np.sqrt(self.state[f"{name}/variance"] + BATCH_NORM_EPSILON)
        normal: Values = (x - self.state[f"{name}/mean"]) / deviation
        return normal * self.parameters[f"{name}/scale"] + self.parameters[f"{name}/bias"]

    def layer_norm(self, x: Values, name: str, *, epsilon: float) -> Values:
        """Normalise by mean and biased variance of the last dimension."""
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        normal: Values = (x - mean) / np.sqrt(variance + epsilon)
        return normal * self.parameters[f"{name}/scale"] + self.parameters[f"{name}/bias"]

    def embed(self, ids: Values, name: str, *, count: int, width: int) -> Values:
        """Rows of the table."""
        return np.asarray(self.parameters[f"{name}/embedding"][ids])

    def first_embeddings(self, like: Values, name: str, *, count: int) -> Values:
        """The first rows of the table."""
        return self.parameters[f"{name}/embedding"][: like.shape[1]]

    def real(self, tokens: Values) -> Values:
        """1 where a token is not 0."""
        return np.asarray(tokens != 0, np.int32)

    def sinusoids(self, like: Values, *, position: int = 0, count: int = 0) -> Values:
        """Rows of the table."""
        _, time, width = like.shape
        table = sinusoid_table(position + time, width)
        return np.asarray(table[position:], like.dtype)

    def project_to_embedding(self, x: Values, name: str, *, bias: str = "") -> Values:
        """Multiply by the transposed table."""
        out = x @ self.parameters[f"{name}/embedding"].T
        return out + self.parameters[f"{bias}/bias"] if bias else out

    def recurrent(self, x: Values, lengths: Values, name: str, *, units: int, cell: str) -> Values:
        """Compute one step after the other."""
        kernel, bias = self.parameters[f"{name}/kernel"], self.parameters[f"{name}/bias"]
        recurrent_kernel = self.parameters[f"{name}/recurrent_kernel"]
        from_inputs = x @ kernel + bias
        state = (np.zeros((len(x), units), x.dtype),) * (2 if cell == "lstm" else 1)
        for time in range(x.shape[1]):
            from_state = state[0] @ recurrent_kernel
            if cell == "gru":
                from_state = from_state + self.parameters[f"{name}/recurrent_bias"]
            moved = CELLS[cell](from_inputs[:, time], from_state, state)
            goes_on = (time < lengths)[:, None]
            state = tuple(
                np.where(goes_on, new, old) for new, old in zip(moved, state, strict=True)
            )
        return state[0]

    def attention(
        self,
        query: Values,
        key: Values,
        value: Values,
        *,
        heads: int,
        mask: Values | None = None,
        causal: bool = False,
    ) -> Values:
        """Attention: softmax of the scaled products over the keys that count."""
        split = [x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in (query, key, value)]
        query, key, value = split
        scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
        hidden = np.finfo(scores.dtype).min  # where all keys have it, they weigh the same
        if mask is not None:
            scores = np.where(mask[:, None, None] == 1, scores, hidden)
        if causal:
            # Queries are the last positions of the keys: all positions, or those after a cache.
            queries, keys = scores.shape[2:]
            seen = np.arange(keys) <= np.arange(keys - queries, keys)[:, None]
            scores = np.where(seen, scores, hidden)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        out: Values = (weights @ value).swapaxes(1, 2)
        return out.reshape(*out.shape[:2], -1)

    def empty_cache(self, batch: int, time: int, width: int) -> tuple[Values, Values]:
        """Empty keys and values; NumPy's arrays grow, so ``time`` is not needed."""
        dtype = next(iter(self.parameters.values())).dtype
        return (np.zeros((batch, 0, width), dtype),) * 2

    def cached_attention(
        self,
        query: Values,
        key: Values,
        value: Values,
        *,
        heads: int,
        position: int,
        cache: tuple[Values, Values],
    ) -> tuple[Values, tuple[Values, Values]]:
        """Causal attention of new positions over the cache and themselves, and the new cache."""
        keys, values = (
            np.concatenate((old, new), 1) for old, new in zip(cache, (key, value), strict=True)
        )
        return self.attention(query, keys, values, heads=heads, causal=True), (keys, values)

    def embeddings_from(self, name: str, position: int, time: int) -> Values:
        """Rows ``position`` to ``position + time`` of a table."""
        return self.parameters[f"{name}/embedding"][position : position + time]

    def last(self, x: Values) -> Values:
        """(batch, time, width) -> (batch, width), the last position."""
        return x[:, -1]

    def most_likely(self, logits: Values) -> Values:
        """(batch, vocabulary) -> (batch,), integers."""
        return np.asarray(logits.argmax(-1), np.int32)

    def max_pool2d(
        self, x: Values, *, window: int, stride: int = 0, padding: int = 0, ceil: bool = False
    ) -> Values:
        """Maximum over windows; padding never wins."""
        step = stride or window
        beyond = (rows_beyond(size, window, step, padding, ceil=ceil) for size in x.shape[1:3])
        height, width = ((padding, padding + more) for more in beyond)
        if padding or ceil:
            x = np.pad(x, ((0, 0), height, width, (0, 0)), constant_values=-np.inf)
        windows = sliding_window_view(x, (window, window), axis=(1, 2))[:, ::step, ::step]
        return np.asarray(windows.max(axis=(4, 5)))

    def mean_pool2d(self, x: Values) -> Values:
        """Mean over height and width."""
        return np.asarray(x.mean(axis=(1, 2)))

    def adaptive_mean_pool2d(self, x: Values, side: int) -> Values:
        """Mean over each window's rows, then over its columns."""
        rows, columns = (adaptive_windows(size, side) for size in x.shape[1:3])
        x = np.stack([x[:, begin:end].mean(axis=1) for begin, end in rows], axis=1)
        return np.stack([x[:, :, begin:end].mean(axis=2) for begin, end in columns], axis=2)

    def relu(self, x: Values) -> Values:
        """max(x, 0)."""
        return np.maximum(x, 0)

    def leaky_relu(self, x: Values, slope: float) -> Values:
        """x where positive, else slope x."""
        return np.where(x > 0, x, slope * x)

    def gelu(self, x: Values) -> Values:
        """GELU by the error function."""
        return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))

    def gelu_tanh(self, x: Values) -> Values:
        """GELU by the tanh approximation."""
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))

    def tanh(self, x: Values) -> Values:
        """Hyperbolic tangent."""
        return np.asarray(np.tanh(x))

    def exp(self, x: Values) -> Values:
        """Exponential."""
        return np.asarray(np.exp(x))

    def scale(self, x: Values, factor: float) -> Values:
        """factor x."""
        return factor * x

    def add(self, x: Values, y: Values) -> Values:
        """x + y."""
        return x + y

    def multiply(self, x: Values, y: Values) -> Values:
        """x y."""
        return x * y

    def normalize(self, x: Values) -> Values:
        """x / |x|."""
        return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))

    def match(self, x: Values, y: Values) -> Values:
        """x y^T."""
        return np.asarray(x @ y.T)

    def concatenate(self, *arrays: Values) -> Values:
        """Concatenate along the last dimension."""
        return np.concatenate(arrays, -1)

    def take(self, x: Values, positions: Values) -> Values:
        """Take rows of every example."""
        return np.take_along_axis(x, positions[:, :, None], axis=1)

    def first(self, x: Values) -> Values:
        """Take the first position."""
        return x[:, 0]

    def flatten(self, x: Values) -> Values:
        """Merge all dimensions but the batch into one."""
        return x.reshape(x.shape[0], -1)

    def softmax_cross_entropy(self, logits: Values, labels: Values) -> Values:
        """Mean of the log of the sum of exponentials, minus the logit of the label."""
        top = logits.max(axis=-1, keepdims=True)
        log_total = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
        chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        return np.asarray((log_total - chosen).mean())

    def in_batch_softmax(self, logits: Values) -> Values:
        """Softmax cross-entropy; the label of each row is its own number."""
        return self.softmax_cross_entropy(logits, np.arange(len(logits)))

    def binary_cross_entropy(self, logits: Values, labels: Values) -> Values:
        """Mean of log(1 + exp(x)) - x label."""
        return np.asarray((np.logaddexp(0, logits) - logits * labels).mean())

    def evidence_lower_bound(
        self, logits: Values, mean: Values, log_variance: Values, target: Values
    ) -> Values:
        """Reconstruction and divergence, each a sum per example."""
        reconstruction = (np.logaddexp(0, logits) - logits * target).sum(-1)
        divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(-1)
        return np.asarray((reconstruction + divergence).mean())

    def real_and_fake(self, real: Values, fake: Values) -> Values:
        """Binary cross-entropy of real against 1 plus fake against 0."""
        return np.asarray(np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean())

    def fooled(self, fake: Values) -> Values:
        """Binary cross-entropy of fake against 1."""
        return np.asarray(np.logaddexp(0, -fake).mean())


def _rnn(from_inputs: Values, from_state: Values, state: tuple[Values, ...]) -> tuple[Values, ...]:
    return (np.tanh(from_inputs + from_state),)


def _lstm(from_inputs: Values, from_state: Values, state: tuple[Values, ...]) -> tuple[Values, ...]:
    i, f, g, o = np.split(from_inputs + from_state, 4, axis=-1)
    memory = expit(f) * state[1] + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(memory), memory


def _gru(from_inputs: Values, from_state: Values, state: tuple[Values, ...]) -> tuple[Values, ...]:
    (r, z, n), (r_state, z_state, n_state) = (
        np.split(x, 3, axis=-1) for x in (from_inputs, from_state)
    )
    update = expit(z + z_state)
    candidate = np.tanh(n + expit(r + r_state) * n_state)
    return ((1 - update) * candidate + update * state[0],)


CELLS = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}

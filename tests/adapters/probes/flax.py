"""Which sides Flax NNX takes; run by its own interpreter, prints JSON."""

import json

import jax.numpy as jnp
from flax import nnx

answers, rngs = {}, nnx.Rngs(0)
norm = nnx.BatchNorm(1, rngs=rngs)
norm(jnp.array([[0.0], [2.0]]))  # biased variance 1, as at the start; unbiased 2
answers["running-variance"] = "biased" if abs(float(norm.var[0]) - 1) < 1e-5 else "unbiased"
answers["batch-norm-momentum"] = f"the old, new {float(norm.mean[0]):.2f}"
answers["batch-norm-epsilon"] = str(norm.epsilon)
answers["layer-norm-epsilon"] = str(nnx.LayerNorm(1, rngs=rngs).epsilon)
answers["gelu"] = "exact" if abs(float(nnx.gelu(1.0)) - 0.8413447) < 1e-6 else "tanh"
answers["leaky-relu"] = f"{-float(nnx.leaky_relu(-1.0)):.2f}"
conv = nnx.Conv(1, 1, (3,), strides=2, padding="SAME", use_bias=False, rngs=rngs)
conv.kernel.set_value(jnp.array([1.0, 10.0, 100.0]).reshape(3, 1, 1))
place = float(conv(jnp.array([1.0, 0, 0, 0]).reshape(1, 4, 1))[0, 0, 0])
answers["same-padding"] = "(0, 1)" if place == 1 else "(1, 0)"
row = jnp.arange(1.0, 8).reshape(1, 7, 1)
maxima = nnx.max_pool(row, (3,), strides=(2,), padding="SAME").ravel().tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
mean = float(nnx.avg_pool(jnp.ones((1, 3, 1)), (2,), strides=(2,), padding="SAME")[0, -1, 0])
answers["mean-pooling-at-the-edge"] = "counted" if mean == 0.5 else "not counted"
adaptive = any("adaptive" in name for name in dir(nnx))
answers["adaptive-pooling"] = "offered" if adaptive else "not offered"
up = nnx.ConvTranspose(1, 1, (3,), padding="VALID", use_bias=False, rngs=rngs)
up.kernel.set_value(jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1))
spread = up(jnp.ones((1, 1, 1))).ravel().tolist()
answers["transposed-convolution"] = "gradient" if spread == [1, 2, 3] else "turned"
lstm = nnx.OptimizedLSTMCell(2, 3, rngs=rngs)
biases = [bias for bias in (lstm.dense_i.bias, lstm.dense_h.bias) if bias is not None]
biases = [bias for bias in biases if bias.get_value() is not None]
answers["lstm-biases"] = str(len(biases))
answers["lstm-forget-bias"] = f"{float(biases[0][3]):.0f}"
gru = nnx.GRUCell(1, 1, rngs=rngs)
gru.dense_i.kernel.set_value(jnp.array([[0.0, 100.0, 100.0]]))
gru.dense_h.kernel.set_value(jnp.zeros((1, 3)))
state, _ = gru(jnp.zeros((1, 1)), jnp.ones((1, 1)))
answers["gru-gates"] = "r z n" if float(state[0, 0]) < 0.1 else "z r n"
bias = gru.dense_h.bias
answers["gru-biases"] = "no" if bias is None or bias.get_value() is None else "yes"
answers["dense-kernel"] = (
    "(in, out)" if nnx.Linear(2, 3, rngs=rngs).kernel.shape == (2, 3) else "(out, in)"
)
shape = nnx.Conv(5, 7, (2, 3), rngs=rngs).kernel.shape
answers["convolution-kernel"] = "(h, w, in, out)" if shape == (2, 3, 5, 7) else str(shape)


class Pair(nnx.Module):
    """One that is used and one that is not; and a table."""

    def __init__(self):
        self.used, self.lonely = nnx.Param(jnp.ones(1)), nnx.Param(jnp.ones(1))
        self.table = nnx.Embed(3, 1, rngs=rngs)


def loss(pair):
    """Reaches all but one."""
    return 2 * pair.used.sum() + pair.table(jnp.array([1, 1])).sum()


gradients = nnx.grad(loss)(Pair())
answers["unreached-parameter"] = "zeros" if float(gradients["lonely"][0]) == 0 else "none"
rows = gradients["table"]["embedding"].get_value()
answers["embedding-gradient"] = "whole" if rows.shape == (3, 1) else "rows"
query, keys = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 2, 1, 1))
values = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)


def attended(first):
    """The values attended to, where only the first key may count."""
    mask = jnp.array([first, False])[None, None, None]
    return float(nnx.dot_product_attention(query, keys, values, mask=mask).sum())


answers["attention-without-keys"] = {0.0: "zeros", 2.0: "the mean of all values"}[attended(False)]
answers["attention-mask"] = "a key that counts" if attended(True) == 1 else "a key that is hidden"
print(json.dumps({"flax": answers}))

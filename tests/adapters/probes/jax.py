"""Which sides JAX takes, with optax; run by its own interpreter, prints JSON."""

import json

import jax
import jax.numpy as jnp
import optax
from jax import lax

answers = {}
answers["gelu"] = "exact" if abs(float(jax.nn.gelu(1.0)) - 0.8413447) < 1e-6 else "tanh"
answers["leaky-relu"] = f"{-float(jax.nn.leaky_relu(-1.0)):.2f}"
answers["same-padding"] = str(lax.padtype_to_pads((4,), (3,), (2,), "SAME")[0])
row = jnp.arange(1.0, 8)
maxima = lax.reduce_window(row, -jnp.inf, lax.max, (3,), (2,), "SAME").tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
adaptive = any("adaptive" in name for part in (lax, jax.nn) for name in dir(part))
answers["adaptive-pooling"] = "offered" if adaptive else "not offered"
kernel = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
spread = lax.conv_transpose(jnp.ones((1, 1, 1)), kernel, (1,), "VALID")
answers["transposed-convolution"] = "gradient" if spread.ravel().tolist() == [1, 2, 3] else "turned"


def moved(epsilon, gradient):
    """One step of Adam from zero with rate 1."""
    optimizer = optax.adam(1.0, eps=epsilon)
    start = jnp.zeros_like(gradient)
    updates, state = optimizer.update(gradient, optimizer.init(start), start)
    return updates, state


step, _ = moved(1.0, jnp.ones(1))
answers["adam-bias-correction"] = ("after" if abs(step[0] + 0.5) < 1e-3 else "before") + " (optax)"
optimizer = optax.adam(1.0)
small = jnp.array([1e-8])
update, _ = optimizer.update(small, optimizer.init(small), small)
answers["adam-epsilon"] = ("1e-08" if abs(update[0] + 0.5) < 1e-2 else "another") + " (optax)"
gradient = jax.grad(lambda pair: 2 * pair[0])((1.0, 1.0))[1]
answers["unreached-parameter"] = "zeros" if gradient == 0 else "none"
rows = jax.grad(lambda table: table[jnp.array([1, 1])].sum())(jnp.zeros((3, 1)))
answers["embedding-gradient"] = "whole" if rows.shape == (3, 1) else "rows"
_, state = moved(1e-12, rows)
second = float(state[0].nu[1, 0]) / 1e-3
words = "square of the sum" if second > 3 else "sum of the squares"
answers["adam-on-repeated-rows"] = words + " (optax)"


def pooled(image):
    """The sum after max pooling with a window of 2."""
    return lax.reduce_window(image, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID").sum()


shares = jax.grad(pooled)(jnp.ones((2, 2)))
answers["max-pooling-ties"] = "one of them" if float(shares.sum()) == 1 else "each of them, whole"
tiny = jax.jit(lambda x: x * 0.01)(jnp.full(64, 1e-38))
answers["denormals"] = "kept" if float(tiny.sum()) > 0 else "flushed"
query, keys = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 2, 1, 1))
values = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)


def attended(first):
    """The values attended to, where only the first key may count."""
    mask = jnp.array([first, False])[None, None, None]
    return float(jax.nn.dot_product_attention(query, keys, values, mask=mask).sum())


answers["attention-without-keys"] = {0.0: "zeros", 2.0: "the mean of all values"}[attended(False)]
answers["attention-mask"] = "a key that counts" if attended(True) == 1 else "a key that is hidden"
print(json.dumps({"jax": answers}))

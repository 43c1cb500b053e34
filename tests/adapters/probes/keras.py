"""Which sides Keras takes on the backend in use; run by its own interpreter, prints JSON."""

import json

import keras
import numpy as np
from keras import layers, ops

answers = {}


def value(tensor):
    """A number."""
    return float(np.ravel(ops.convert_to_numpy(tensor))[0])


norm = layers.BatchNormalization()
norm(np.array([[0.0], [2.0]], np.float32), training=True)  # biased variance 1, unbiased 2
biased = abs(value(norm.moving_variance) - 1) < 1e-5
answers["running-variance"] = "biased" if biased else "unbiased"
answers["batch-norm-momentum"] = f"the old, new {value(norm.moving_mean):.2f}"
answers["batch-norm-epsilon"] = str(norm.epsilon)
answers["layer-norm-epsilon"] = str(layers.LayerNormalization().epsilon)
one = np.ones(1, np.float32)
forms = [
    "exact" if abs(value(gelu(one)) - 0.8413447) < 1e-6 else "tanh"
    for gelu in (keras.activations.gelu, ops.gelu)
]
answers["gelu"] = f"{forms[0]} as an activation, {forms[1]} in keras.ops"
answers["leaky-relu"] = f"{-value(layers.LeakyReLU()(-one)):.1f}"
conv = layers.Conv1D(1, 3, strides=2, padding="same", use_bias=False)
conv.build((None, 4, 1))
conv.kernel.assign(np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1))
place = value(conv(np.array([1.0, 0, 0, 0], np.float32).reshape(1, 4, 1)))
answers["same-padding"] = "(0, 1)" if place == 1 else "(1, 0)"
row = np.arange(1, 8, dtype=np.float32).reshape(1, 7, 1)
maxima = ops.convert_to_numpy(layers.MaxPooling1D(3, 2, padding="same")(row)).ravel().tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
ones = np.ones((1, 3, 1), np.float32)
mean = float(ops.convert_to_numpy(layers.AveragePooling1D(2, 2, padding="same")(ones))[0, -1, 0])
answers["mean-pooling-at-the-edge"] = "counted" if mean == 0.5 else "not counted"
pooled = layers.AdaptiveAveragePooling1D(2)(np.eye(3, dtype=np.float32)[:, :, None])
parts = ops.convert_to_numpy(pooled)[:, :, 0].T.tolist()
answers["adaptive-pooling"] = " ".join(
    f"{part.index(max(part)) + 1}-{3 - part[::-1].index(max(part))}" for part in parts
)
up = layers.Conv1DTranspose(1, 3, use_bias=False)
up.build((None, 1, 1))
up.kernel.assign(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1))
spread = ops.convert_to_numpy(up(np.ones((1, 1, 1), np.float32))).ravel().tolist()
answers["transposed-convolution"] = "gradient" if spread == [1, 2, 3] else "turned"
lstm = layers.LSTM(3)
lstm.build((None, 1, 2))
answers["lstm-biases"] = str(sum("bias" in weight.name for weight in lstm.weights))
answers["lstm-forget-bias"] = f"{ops.convert_to_numpy(lstm.cell.bias)[3]:.0f}"
gru = layers.GRU(1)
gru.build((None, 1, 1))
gru.cell.kernel.assign([[0.0, 100.0, 100.0]])
gru.cell.recurrent_kernel.assign(np.zeros((1, 3)))
# If the second is the update gate, the state stays 0.
answers["gru-gates"] = "r z n" if value(gru(np.ones((1, 1, 1), np.float32))) < 0.1 else "z r n"
answers["gru-reset"] = ("after" if gru.reset_after else "before") + " the product"
answers["gru-biases"] = "yes" if gru.cell.bias.shape[0] == 2 else "no"
answers["adam-epsilon"] = str(keras.optimizers.Adam().epsilon)
moved = keras.Variable(np.zeros(1, np.float32))
keras.optimizers.Adam(1.0, epsilon=1.0).apply([ops.ones(1)], [moved])
answers["adam-bias-correction"] = "after" if abs(value(moved) + 0.5) < 1e-3 else "before"
dense, image = layers.Dense(3), layers.Conv2D(7, (2, 3))
dense.build((None, 2))
image.build((None, 4, 4, 5))
answers["dense-kernel"] = "(in, out)" if tuple(dense.kernel.shape) == (2, 3) else "(out, in)"
shape = tuple(image.kernel.shape)
answers["convolution-kernel"] = "(h, w, in, out)" if shape == (2, 3, 5, 7) else str(shape)
attention = layers.MultiHeadAttention(1, 1, use_bias=False, kernel_initializer="ones")
query, values = np.zeros((1, 1, 1), "float32"), np.array([[[1.0], [3.0]]], "float32")


def attended(first):
    """The values attended to, where only the first key may count."""
    mask = np.array([[[first, False]]])
    return float(ops.convert_to_numpy(attention(query, values, attention_mask=mask)).sum())


answers["attention-without-keys"] = {0.0: "zeros", 2.0: "the mean of all values"}[attended(False)]
answers["attention-mask"] = "a key that counts" if attended(True) == 1 else "a key that is hidden"

backend = keras.backend.backend()
model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(3, 1)])
optimizer = keras.optimizers.Adam(1.0)
model.compile(optimizer=optimizer, loss=lambda _, outputs: ops.sum(outputs, axis=(1, 2)))
model.train_on_batch(np.array([[1, 1]]), np.zeros((1, 2, 1), np.float32))
(second,) = (v for v in optimizer.variables if "velocity" in v.path)
repeated = float(ops.convert_to_numpy(second)[1, 0]) / 1e-3
words = "square of the sum" if repeated > 3 else "sum of the squares"
own = {"keras": answers, f"keras on {backend}": {"adam-on-repeated-rows": words}}
print(json.dumps(own))

"""Which sides Chainer takes; run by its own interpreter, prints JSON."""

import inspect
import json
import warnings

import numpy as np

warnings.simplefilter("ignore")  # pkg_resources announces its end
import chainer  # noqa: E402
from chainer import functions as F  # noqa: E402
from chainer import links as L  # noqa: E402

answers = {}
norm = L.BatchNormalization(1)
before = norm.avg_var.copy()
with chainer.using_config("train", True):
    norm(np.array([[0.0], [2.0]], np.float32))
moved = float(norm.avg_var[0] - norm.decay * before[0]) / (1 - norm.decay)
answers["running-variance"] = "unbiased" if abs(moved - 2) < 1e-2 else "biased"
answers["batch-norm-epsilon"] = str(norm.eps)
answers["batch-norm-momentum"] = f"the old, new {1 - norm.decay:.1f}"
slope = inspect.signature(F.leaky_relu).parameters["slope"].default
answers["leaky-relu"] = str(slope)
weights = chainer.Parameter(np.zeros(1, np.float32))
link = chainer.Link()
with link.init_scope():
    link.weights = weights
chainer.optimizers.Adam(alpha=1.0, eps=1.0).setup(link).update(lambda: F.sum(link.weights))
# From zero with gradient 1 the step is 1 / (1 + epsilon) after the correction.
answers["adam-bias-correction"] = "after" if abs(link.weights.array[0] + 0.5) < 1e-3 else "before"
answers["dense-kernel"] = "(out, in)" if L.Linear(3, 2).W.shape == (2, 3) else "(in, out)"
size = F.max_pooling_2d(np.zeros((1, 1, 8, 8), np.float32), 3, stride=2, pad=1).shape[2]
answers["size-of-pooling"] = "rounded up" if size == 5 else "rounded down"
row = np.arange(1, 8, dtype=np.float32).reshape(1, 1, 7)
maxima = F.max_pooling_1d(row, 3, stride=2).array.ravel().tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
ones = np.ones((1, 1, 2), np.float32)
mean = float(F.average_pooling_1d(ones, 2, stride=2, pad=1).array[0, 0, 0])
answers["mean-pooling-at-the-edge"] = "counted" if mean == 0.5 else "not counted"
image = chainer.Variable(np.ones((1, 1, 2, 2), np.float32))
F.sum(F.max_pooling_2d(image, 2)).backward()
answers["max-pooling-ties"] = (
    "one of them" if float(image.grad.sum()) == 1 else "each of them, whole"
)
print(json.dumps({"chainer": answers}))

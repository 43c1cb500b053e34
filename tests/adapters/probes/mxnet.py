"""Which sides MXNet takes; run by its own interpreter, prints JSON."""

import json

import mxnet as mx
from mxnet import autograd, gluon, nd

answers = {}
norm = gluon.nn.BatchNorm(in_channels=1)
norm.initialize()
with autograd.record():
    norm(nd.array([[0.0], [2.0]]))
moved = (float(norm.running_var.data().asscalar()) - 0.9) / 0.1
answers["running-variance"] = "unbiased" if abs(moved - 2) < 1e-2 else "biased"
answers["batch-norm-epsilon"] = str(norm._kwargs["eps"])
answers["batch-norm-momentum"] = f"the old, new {1 - norm._kwargs['momentum']:.1f}"
answers["leaky-relu"] = f"{-float(nd.LeakyReLU(nd.array([-1.0]), act_type='leaky').asscalar()):.2f}"
weights, optimizer = nd.zeros(1), mx.optimizer.Adam(learning_rate=1.0, epsilon=1.0)
state = optimizer.create_state(0, weights)
optimizer.update(0, weights, nd.ones(1), state)
# From zero with gradient 1 the step is 1 / (1 + epsilon) after the correction.
answers["adam-bias-correction"] = "after" if abs(weights.asscalar() + 0.5) < 1e-3 else "before"
dense = gluon.nn.Dense(2, in_units=3)
answers["dense-kernel"] = "(out, in)" if dense.weight.shape == (2, 3) else "(in, out)"
size = gluon.nn.MaxPool2D(3, strides=2, padding=1)(nd.zeros((1, 1, 8, 8))).shape[2]
answers["size-of-pooling"] = "rounded up" if size == 5 else "rounded down"
row = nd.arange(1, 8).reshape((1, 1, 7))
maxima = gluon.nn.MaxPool1D(3, strides=2, ceil_mode=True)(row).asnumpy().ravel().tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
mean = float(gluon.nn.AvgPool1D(2, strides=2, padding=1)(nd.ones((1, 1, 2)))[0, 0, 0].asscalar())
answers["mean-pooling-at-the-edge"] = "counted" if mean == 0.5 else "not counted"
image = nd.ones((1, 1, 2, 2))
image.attach_grad()
with autograd.record():
    pooled = nd.Pooling(image, kernel=(2, 2), stride=(2, 2), pool_type="max")
pooled.backward()
answers["max-pooling-ties"] = (
    "one of them" if float(image.grad.sum().asscalar()) == 1 else "each of them, whole"
)
print(json.dumps({"mxnet": answers}))

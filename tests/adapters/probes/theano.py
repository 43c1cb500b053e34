"""Which sides Theano takes; run by its own interpreter, prints JSON."""

import inspect
import json
import os
import sys
import tempfile

folder = tempfile.TemporaryDirectory()
os.environ["THEANO_FLAGS"] = f"floatX=float32,blas.ldflags=,base_compiledir={folder.name}"
sys.modules["theano.scan_module.scan_perform_ext"] = None  # it does not compile for Python 3.11
import numpy as np  # noqa: E402
import theano  # noqa: E402
import theano.tensor as T  # noqa: E402
from theano.tensor.nnet import bn  # noqa: E402
from theano.tensor.signal.pool import pool_2d  # noqa: E402

answers = {}
x = theano.shared(np.array([[0.0], [2.0]], np.float32))
one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
start = theano.shared(zero), theano.shared(one)
moved = bn.batch_normalization_train(x, one, zero, running_mean=start[0], running_var=start[1])[-2:]
mean, variance = (float(statistic.eval().ravel()[0]) for statistic in moved)
answers["running-variance"] = "unbiased" if abs(variance - 1.1) < 1e-3 else "biased"
answers["batch-norm-momentum"] = f"the new, {mean:.1f}"
defaults = inspect.signature(bn.batch_normalization_train).parameters
answers["batch-norm-epsilon"] = str(defaults["epsilon"].default)
answers["leaky-relu"] = str(inspect.signature(T.nnet.relu).parameters["alpha"].default)
image, marks = (
    np.array(signal, np.float32).reshape(1, 1, 1, 3) for signal in ([1, 0, 0], [1, 10, 100])
)
answer = float(T.nnet.conv2d(theano.shared(image), theano.shared(marks)).eval().item())
answers["kernel-of-a-convolution"] = "turned by half a turn" if answer == 100 else "as it stands"
image = theano.shared(np.ones((1, 1, 2, 2), np.float32))
share = float(T.grad(pool_2d(image, ws=(2, 2), ignore_border=True).sum(), image).sum().eval())
answers["max-pooling-ties"] = "one of them" if share == 1 else "each of them, whole"
print(json.dumps({"theano": answers}))

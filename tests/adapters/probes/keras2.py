"""Which sides Keras 2 takes on Theano; run by its own interpreter, prints JSON."""

import collections
import collections.abc
import json
import os
import sys
import tempfile

folder = tempfile.TemporaryDirectory()
os.environ["THEANO_FLAGS"] = f"floatX=float32,blas.ldflags=,base_compiledir={folder.name}"
os.environ["KERAS_HOME"] = folder.name
sys.modules["theano.scan_module.scan_perform_ext"] = None  # it does not compile for Python 3.11
for name in ("Iterable", "Mapping", "Sequence"):
    setattr(collections, name, getattr(collections.abc, name))
import numpy as np  # noqa: E402
from keras import layers, models  # noqa: E402

place = "after" if layers.GRU(1).reset_after else "before"
answers = {"gru-reset": place + " the product"}
model = models.Sequential([layers.Conv2D(1, (1, 3), use_bias=False, input_shape=(1, 3, 1))])
model.set_weights([np.array([1, 10, 100], "float32").reshape(1, 3, 1, 1)])
answer = model.predict_on_batch(np.array([1, 0, 0], "float32").reshape(1, 1, 3, 1)).item()
answers["kernel-of-a-convolution"] = "turned by half a turn" if answer == 100 else "as it stands"
print(json.dumps({"keras2": answers}))

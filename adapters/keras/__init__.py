"""Keras 3 on its three backends: a compiled model stepped by ``train_on_batch``, or by ``fit``.

Follows https://keras.io/api/models/model_training_apis/ and, for the gate's gradients, the guides
"Writing a training loop from scratch" in TensorFlow, JAX and PyTorch
(https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/, ..._in_jax/, ..._in_torch/).
``common`` has the code that the backends share. Each backend has one file for its own code.
"""

import os


def Adapter(device, mode, threads, precision):
    """Return the adapter of a mode: BACKEND, BACKEND-fit or BACKEND-tuned."""
    os.environ["KERAS_BACKEND"] = mode.partition("-")[0]
    if device == "cpu":
        # By default every backend uses a GPU if there is one, and TensorFlow would then compile.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if mode.startswith("tensorflow"):
        from levelfield.adapters.keras.on_tensorflow import OnTensorFlow as Backend
    elif mode.startswith("jax"):
        from levelfield.adapters.keras.on_jax import OnJax as Backend
    else:
        from levelfield.adapters.keras.on_torch import OnTorch as Backend
    return Backend(device, mode, threads, precision)

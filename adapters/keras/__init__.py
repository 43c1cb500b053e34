"""Keras 3 on its three backends: a compiled model stepped by ``train_on_batch``, or by ``fit``.

Follows https://keras.io/api/models/model_training_apis/ and, for the gate's gradients, the guides
"Writing a training loop from scratch" in TensorFlow, JAX and PyTorch
(https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/, ..._in_jax/, ..._in_torch/).
``common`` has what the backends share, and one file for each backend what they do not.
"""

import os


def Adapter(device, mode, threads, precision):
    """The adapter of a mode: BACKEND, BACKEND-fit or BACKEND-tuned."""
    os.environ["KERAS_BACKEND"] = mode.partition("-")[0]
    if device == "cpu":
        # Every backend would take a GPU by itself, and TensorFlow would compile because of it.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if mode.startswith("tensorflow"):
        from adapters.keras.on_tensorflow import OnTensorFlow as Backend
    elif mode.startswith("jax"):
        from adapters.keras.on_jax import OnJax as Backend
    else:
        from adapters.keras.on_torch import OnTorch as Backend
    return Backend(device, mode, threads, precision)

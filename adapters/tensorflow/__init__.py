"""TensorFlow as its Core guides teach it, and as TensorFlow 1 ran it, over the same models."""


def Adapter(device, mode, threads, precision):
    """Return the adapter of a mode."""
    if mode == "session":
        from levelfield.adapters.tensorflow.session import SessionAdapter

        return SessionAdapter(device, mode, threads, precision)
    from levelfield.adapters.tensorflow.core import CoreAdapter

    return CoreAdapter(device, mode, threads, precision)

"""The reference as an arm of its own: how far an uncluttered NumPy or JAX program gets."""


def Adapter(device, mode, threads, precision):
    """Return the adapter of a mode; ``reference:numpy`` must not import JAX."""
    if mode == "numpy":
        from levelfield.adapters.reference.with_numpy import NumpyAdapter

        return NumpyAdapter(device, mode, threads, precision)
    from levelfield.adapters.reference.with_jax import JaxAdapter

    return JaxAdapter(device, mode, threads, precision)

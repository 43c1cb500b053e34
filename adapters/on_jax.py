"""The work that adapters on JAX share: device, precision, counts of compilations, memory.

For ``jax``, ``flax``, the reference's own arm and Keras' backend.
"""

import jax
import numpy as np

from levelfield.adapters.base import Adapter, Unsupported


class OnJax(Adapter):
    """An adapter whose arrays are those of JAX."""

    def __init__(self, device, mode, threads, precision):
        jax.config.update("jax_platforms", device)
        try:
            self.device = jax.devices(device)[0]
        except RuntimeError as error:
            raise Unsupported("JAX finds no device of the kind " + device) from error
        # No TF32 and no bfloat16 passes; on the CPU it changes nothing.
        jax.config.update("jax_default_matmul_precision", "highest")
        self.compiled = 0
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event, duration, **_):
        self.compiled += event.endswith(("jaxpr_trace_duration", "backend_compile_duration"))

    def compilations(self):
        """Count traces and backend compilations of the whole process, as JAX reports them.

        https://docs.jax.dev/en/latest/_autosummary/jax.monitoring.html
        """
        return self.compiled

    def device_memory(self):
        """Return the allocator's peak since the process began: JAX cannot reset it."""
        found = self.device.memory_stats()
        if self.device.platform == "cpu" or not found:
            return None
        return {
            "used_peak_bytes": found.get("peak_bytes_in_use"),
            "reserved_peak_bytes": found.get("peak_pool_bytes"),
        }

    def describe(self):
        """Describe the run. JAX sizes its pool by NPROC and affinity and reports no size."""
        return {
            "version": jax.__version__,
            "threads": None,
            "numpy": np.__version__,
            "device": "cuda" if self.device.platform == "gpu" else self.device.platform,
            "device_kind": self.device.device_kind,
            "compiler": "XLA, " + self.device.client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }

    def place(self, name, value):
        """Put the array on the device, asynchronously; ``wait`` blocks."""
        return jax.device_put(super().place(name, value))

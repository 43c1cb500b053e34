"""The work that adapters on JAX share: device, precision, counts of compilations, memory.

For ``jax``, ``flax``, the reference's own arm and Keras' backend.
"""

import jax

from levelfield.adapters.base import Adapter, Unsupported

# The end of the name of an event of JAX -> the name of its count. A call for which the cache of a
# jitted function has no trace is traced.
COUNTED = {
    "jaxpr_trace_duration": "traces (cache misses of jit)",
    "backend_compile_duration": "compilations by XLA",
}


class OnJax(Adapter):
    """An adapter whose arrays are those of JAX."""

    def configure(self):
        """Find the device and switch TF32 off. JAX sizes its pool by NPROC and the affinity."""
        jax.config.update("jax_platforms", self.device)
        try:
            self.placed_on = jax.devices(self.device)[0]
        except RuntimeError as error:
            raise Unsupported("JAX finds no device of the kind " + self.device) from error
        # No TF32 and no bfloat16 passes; on the CPU it changes nothing.
        jax.config.update("jax_default_matmul_precision", "highest")
        self.compiled = dict.fromkeys(COUNTED.values(), 0)
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event, duration, **_):
        name = COUNTED.get(event.rpartition("/")[2])
        if name:
            self.compiled[name] += 1

    def compilations(self):
        """Count traces and backend compilations of the whole process, as JAX reports them.

        https://docs.jax.dev/en/latest/_autosummary/jax.monitoring.html
        """
        return sum(self.compiled.values())

    def counts(self):
        """Return the traces and the compilations apart."""
        return dict(self.compiled)

    def profile(self, run, folder):
        """Run the steps under jax.profiler. No profile on a GPU."""
        # Imported here because the import of an adapter is timed.
        from levelfield.adapters.profiled_jax import profiled

        return profiled(run, folder) if self.device == "cpu" else None

    def device_memory(self):
        """Return the allocator's peak since the process began: JAX cannot reset it."""
        statistics = self.placed_on.memory_stats()
        if self.placed_on.platform == "cpu" or not statistics:
            return None
        return {
            "used_peak_bytes": statistics.get("peak_bytes_in_use"),
            "reserved_peak_bytes": statistics.get("peak_pool_bytes"),
        }

    def thread_count(self):
        """Return None: JAX reports no size of its pool. Never timed."""

    def describe(self):
        """Describe the run as JAX reports it."""
        device = self.placed_on
        return {
            "version": jax.__version__,
            "threads": self.thread_count(),
            "device": "cuda" if device.platform == "gpu" else device.platform,
            "device_kind": device.device_kind,
            "compiler": "XLA, " + device.client.platform_version,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }

    def place(self, name, value):
        """Put the array on the device, asynchronously; ``wait`` blocks."""
        return jax.device_put(super().place(name, value))

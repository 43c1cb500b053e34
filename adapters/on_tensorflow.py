"""The work that adapters on TensorFlow share: threads, precision, memory.

For ``tensorflow`` and Keras' backend.
"""

import tensorflow as tf

from levelfield.adapters.base import Adapter


class OnTensorFlow(Adapter):
    """An adapter whose arrays are those of TensorFlow 2."""

    def configure(self):
        """Set the threads and switch TF32 off."""
        tf.config.threading.set_intra_op_parallelism_threads(self.threads)
        tf.config.experimental.enable_tensor_float_32_execution(False)

    def thread_count(self):
        """Return the number of threads as it was set. Never timed."""
        return tf.config.threading.get_intra_op_parallelism_threads()

    def device_memory(self):
        """Return the peak of TensorFlow's allocator since the last call.

        https://www.tensorflow.org/api_docs/python/tf/config/experimental/get_memory_info
        """
        if self.device == "cpu":
            return None
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        tf.config.experimental.reset_memory_stats("GPU:0")
        return {"used_peak_bytes": peak, "reserved_peak_bytes": None}

    def profile(self, run, folder):
        """Run the steps under TensorFlow's profiler. No profile on a GPU."""
        # Imported here because the import of an adapter is timed.
        from levelfield.adapters.profiled_tensorflow import profiled

        return profiled(run, folder) if self.device == "cpu" else None

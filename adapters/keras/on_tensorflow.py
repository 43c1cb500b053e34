"""Keras on TensorFlow."""

import tensorflow as tf

from levelfield.adapters.keras.common import KerasAdapter


class OnTensorFlow(KerasAdapter):
    """``keras:tensorflow``, its fit and its tuned mode."""

    native = tf

    def set_up(self, threads):
        """Set the threads and switch TF32 off."""
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.experimental.enable_tensor_float_32_execution(False)

    def thread_count(self):
        """Return the number as it was set."""
        return tf.config.threading.get_intra_op_parallelism_threads()

    def has_gpu(self):
        """Whether TensorFlow places its work on a GPU."""
        return bool(tf.config.list_logical_devices("GPU"))

    def device_memory(self):
        """Return the peak of the allocator."""
        if self.device == "cpu":
            return None
        used = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        tf.config.experimental.reset_memory_stats("GPU:0")
        return {"used_peak_bytes": used, "reserved_peak_bytes": None}

    def after_compile(self):
        """Count the runs of a step's Python code, which runs only while it is traced. Never timed.

        Keras does not expose its functions.
        """
        self.compiled = self.compiled or 0
        self.model.train_step = self._counted(self.model.train_step)
        self.model.predict_step = self._counted(self.model.predict_step)

    def _counted(self, step):
        def traced(*arguments, **options):
            self.compiled += 1
            return step(*arguments, **options)

        return traced

    def decoder(self):
        """Wrap prompt and loop in ``tf.function``."""

        def decode(prompt, count):
            self.compiled += 1
            return self.module.generate(self.model, prompt, count)

        compiled = tf.function(decode, jit_compile=self.jit_compile is True or None)
        return lambda prompt, count: compiled(tf.constant(prompt), count)

    def loss_and_gradients(self, name, x, y, variables):
        """Compute loss and gradients by a gradient tape."""
        with tf.GradientTape() as tape:
            loss = self.loss_of(name, x, y)
        values = [variable.value for variable in variables]
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(loss, values, unconnected_gradients=zero)
        return loss, [tf.convert_to_tensor(gradient) for gradient in found]

    def wait(self, handle):
        """Do nothing: a step's handle holds NumPy values; a function returns when it is done."""
        if self.device == "cuda":
            tf.test.experimental.sync_devices()

"""Keras on TensorFlow."""

import tensorflow as tf

from levelfield.adapters import on_tensorflow
from levelfield.adapters.keras.common import KerasAdapter


class OnTensorFlow(KerasAdapter):
    """``keras:tensorflow``, its fit and its tuned mode."""

    native = tf
    backend = on_tensorflow.OnTensorFlow

    def has_gpu(self):
        """Whether TensorFlow places its work on a GPU."""
        return bool(tf.config.list_logical_devices("GPU"))

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
        gradients = tape.gradient(loss, values, unconnected_gradients=zero)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def wait(self, handle):
        """Do nothing: a step's handle holds NumPy values; a function returns when it is done."""
        if self.device == "cuda":
            tf.test.experimental.sync_devices()

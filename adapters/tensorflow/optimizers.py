"""Optimisers as tf.Module, after the guide "Optimizers with Core APIs".

https://www.tensorflow.org/guide/core/optimizers_core
Unlike in the guide, every state is a separate tf.Variable per parameter. The step number is also a
tf.Variable: tf.function would freeze a Python number into the graph when it traces the step.
"""

import tensorflow as tf


def zeros_like(variables):
    """A slot for every variable."""
    return [tf.Variable(tf.zeros_like(variable)) for variable in variables]


class GradientDescent(tf.Module):
    """variable <- variable - rate * gradient."""

    def __init__(self, variables, learning_rate):
        super().__init__()
        self.trained = variables
        self.learning_rate = learning_rate

    def apply_gradients(self, gradients):
        """Update the trained variables in place; the gradients have their order."""
        for gradient, variable in zip(gradients, self.trained, strict=True):
            if isinstance(gradient, tf.IndexedSlices):  # only some rows of an embedding
                moved = self.learning_rate * gradient.values
                variable.scatter_sub(tf.IndexedSlices(moved, gradient.indices))
            else:
                variable.assign_sub(self.learning_rate * gradient)


class Momentum(tf.Module):
    """velocity <- momentum * velocity + gradient; variable <- variable - rate * velocity."""

    def __init__(self, variables, learning_rate, momentum):
        super().__init__()
        self.trained = variables
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.velocities = zeros_like(variables)

    def apply_gradients(self, gradients):
        """Update the trained variables in place; the gradients have their order."""
        for gradient, variable, slot in zip(gradients, self.trained, self.velocities, strict=True):
            velocity = self.momentum * slot + tf.convert_to_tensor(gradient)
            slot.assign(velocity)
            variable.assign_sub(self.learning_rate * velocity)


class Adam(tf.Module):
    """Kingma and Ba 2015, algorithm 1: epsilon is added after the bias correction."""

    def __init__(self, variables, learning_rate, beta1, beta2, epsilon):
        super().__init__()
        self.trained = variables
        self.learning_rate = learning_rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        # In float32, 1 - beta2**step would lose two digits at the first step.
        self.step = tf.Variable(0.0, dtype=tf.float64)
        self.means, self.variances = zeros_like(variables), zeros_like(variables)

    def apply_gradients(self, gradients):
        """Update the trained variables in place; the gradients have their order."""
        self.step.assign_add(1.0)
        mean_scale = tf.cast(1 / (1 - self.beta1**self.step), tf.float32)
        variance_scale = tf.cast(1 / (1 - self.beta2**self.step), tf.float32)
        for gradient, variable, mean_slot, variance_slot in zip(
            gradients, self.trained, self.means, self.variances, strict=True
        ):
            gradient = tf.convert_to_tensor(gradient)
            mean = self.beta1 * mean_slot + (1 - self.beta1) * gradient
            variance = self.beta2 * variance_slot + (1 - self.beta2) * tf.square(gradient)
            mean_slot.assign(mean)
            variance_slot.assign(variance)
            scale = tf.sqrt(variance * variance_scale) + self.epsilon
            variable.assign_sub(self.learning_rate * (mean * mean_scale) / scale)


OPTIMIZERS = {"sgd": GradientDescent, "momentum": Momentum, "adam": Adam}

"""Deep convolutional GAN: two Keras models and a training loop of their own.

The models follow https://keras.io/examples/generative/dcgan_overriding_train_step/. The steps
follow the guides "Writing a training loop from scratch" in TensorFlow, JAX and PyTorch
(https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/, ..._in_jax/, ..._in_torch/),
because a compiled model has only one optimiser.
"""

import keras
from keras import layers, ops


def norm(number):
    """A batch norm with the constants of the definition."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm{number}")


def generator_of(sizes):
    """(batch, 1, 1, latent) -> images (batch, side, side, channels)."""
    model = keras.Sequential([keras.Input((1, 1, sizes["latent"]))], name="generator")
    for number, filters in enumerate(reversed(sizes["widths"]), start=1):
        options = {"strides": 2, "padding": "same"} if number > 1 else {}
        up = layers.Conv2DTranspose(filters, 4, use_bias=False, name=f"up{number}", **options)
        model.add(up)
        model.add(norm(number))
        model.add(layers.ReLU())
    model.add(
        layers.Conv2DTranspose(
            sizes["channels"],
            4,
            strides=2,
            padding="same",
            use_bias=False,
            activation="tanh",
            name="image",
        )
    )
    return model


def discriminator_of(sizes):
    """(batch, side, side, channels) -> logits (batch, 1)."""
    image = keras.Input((sizes["side"], sizes["side"], sizes["channels"]))
    model = keras.Sequential([image], name="discriminator")
    for number, filters in enumerate(sizes["widths"], start=1):
        # "same" is a padding of 1 on every side for a window of 4, stride 2 and an even size.
        down = layers.Conv2D(
            filters, 4, strides=2, padding="same", use_bias=False, name=f"down{number}"
        )
        model.add(down)
        if number > 1:
            model.add(norm(number))
        model.add(layers.LeakyReLU(negative_slope=0.2))
    model.add(layers.Conv2D(1, 4, use_bias=False, name="logits"))
    model.add(layers.Flatten())
    return model


class DCGAN(keras.Model):
    """Both nets; a call runs the generator."""

    def __init__(self, sizes):
        super().__init__(name="dcgan")
        self.generator = generator_of(sizes)
        self.discriminator = discriminator_of(sizes)

    def call(self, latent, training=False):
        """(batch, 1, 1, latent) -> images (batch, side, side, channels)."""
        return self.generator(latent, training=training)


def build(sizes):
    """Sizes of the preset -> the model."""
    model = DCGAN(sizes)
    model.build((None, 1, 1, sizes["latent"]))
    return model


def against(logits, label):
    """Binary cross-entropy against one label for all examples."""
    labels = ops.full_like(logits, label)
    return ops.mean(ops.binary_crossentropy(labels, logits, from_logits=True))


def told_apart(model, real, fake):
    """The discriminator's loss: real images against 1, generated images against 0."""
    on_real = against(model.discriminator(real, training=True), 1.0)
    return on_real + against(model.discriminator(fake, training=True), 0.0)


def fooled(model, fake):
    """The generator's loss: generated images against 1."""
    return against(model.discriminator(fake, training=True), 1.0)


def discriminator_loss(model, inputs):
    """The discriminator's loss as a function of model and inputs."""
    return told_apart(model, inputs["image"], model.generator(inputs["latent"], training=True))


def generator_loss(model, inputs):
    """The generator's loss as a function of model and inputs."""
    return fooled(model, model.generator(inputs["latent"], training=True))


def make_train_step(model, optimizers):
    """Make ``step(inputs)``, which returns both losses, for the backend in use."""
    make = {"tensorflow": tensorflow_step, "jax": jax_step, "torch": torch_step}
    discriminating, generating = optimizers["discriminator_loss"], optimizers["generator_loss"]
    return make[keras.backend.backend()](model, discriminating, generating)


def tensorflow_step(model, discriminating, generating):
    """Make a step with two gradient tapes under tf.function."""
    import tensorflow as tf

    @tf.function
    def step(inputs):
        with tf.GradientTape() as generator_tape:
            fake = model.generator(inputs["latent"], training=True)
            with tf.GradientTape() as tape:
                discriminator_loss = told_apart(model, inputs["image"], tf.stop_gradient(fake))
            weights = model.discriminator.trainable_weights
            discriminating.apply(tape.gradient(discriminator_loss, weights), weights)
            generator_loss = fooled(model, fake)
        weights = model.generator.trainable_weights
        generating.apply(generator_tape.gradient(generator_loss, weights), weights)
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}

    return step


def torch_step(model, discriminating, generating):
    """Make a step with backward and the gradients of the weights."""
    import torch

    def update(loss, optimizer, weights):
        model.zero_grad()
        loss.backward(retain_graph=True)
        with torch.no_grad():
            optimizer.apply([weight.value.grad for weight in weights], weights)

    def step(inputs):
        fake = model.generator(inputs["latent"], training=True)
        discriminator_loss = told_apart(model, inputs["image"], fake.detach())
        update(discriminator_loss, discriminating, model.discriminator.trainable_weights)
        generator_loss = fooled(model, fake)
        update(generator_loss, generating, model.generator.trainable_weights)
        return {
            "discriminator_loss": discriminator_loss.detach(),
            "generator_loss": generator_loss.detach(),
        }

    return step


def jax_step(model, discriminating, generating):
    """Make a step of stateless calls under jax.jit; variables get the new values after it."""
    import jax

    generator, discriminator = model.generator, model.discriminator

    def told_apart(trained, state, real, fake):
        on_real, state = discriminator.stateless_call(trained, state, real, training=True)
        on_fake, state = discriminator.stateless_call(trained, state, fake, training=True)
        return against(on_real, 1.0) + against(on_fake, 0.0), state

    def fooled(trained, state, judge, judge_state, latent):
        fake, state = generator.stateless_call(trained, state, latent, training=True)
        on_fake, judge_state = discriminator.stateless_call(judge, judge_state, fake, training=True)
        return against(on_fake, 1.0), (state, judge_state)

    @jax.jit
    def stateless_step(state, inputs):
        made, made_state, judge, judge_state, generating_state, discriminating_state = state
        fake, _ = generator.stateless_call(made, made_state, inputs["latent"], training=True)
        (discriminator_loss, judge_state), gradients = jax.value_and_grad(told_apart, has_aux=True)(
            judge, judge_state, inputs["image"], fake
        )
        judge, discriminating_state = discriminating.stateless_apply(
            discriminating_state, gradients, judge
        )
        (generator_loss, (made_state, judge_state)), gradients = jax.value_and_grad(
            fooled, has_aux=True
        )(made, made_state, judge, judge_state, inputs["latent"])
        made, generating_state = generating.stateless_apply(generating_state, gradients, made)
        state = made, made_state, judge, judge_state, generating_state, discriminating_state
        losses = {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}
        return state, losses

    kept = (
        generator.trainable_variables,
        generator.non_trainable_variables,
        discriminator.trainable_variables,
        discriminator.non_trainable_variables,
        generating.variables,
        discriminating.variables,
    )

    def step(inputs):
        state, losses = stateless_step([[v.value for v in part] for part in kept], inputs)
        for variables, values in zip(kept, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return losses

    return step

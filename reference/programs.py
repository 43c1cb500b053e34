"""A definition's programs on JAX arrays: inference, losses, training step, decoding.

``parameters``, ``state`` and ``inputs`` are mappings by canonical name throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from levelfield.reference.layers_jax import JaxLayers
from levelfield.reference.optimizers import AnyArrays, initial_state, update
from levelfield.reference.spec import Model, Objective, Sizes


def inference(model: Model, sizes: Sizes) -> Callable[[AnyArrays, AnyArrays, AnyArrays], AnyArrays]:
    """Make ``(parameters, state, inputs) -> outputs``."""
    return lambda parameters, state, inputs: model.forward(
        JaxLayers(parameters, state), sizes, inputs
    )


def trained_by(objective: Objective, parameters: Mapping[str, Any]) -> AnyArrays:
    """Select the parameters that an objective updates."""
    return {name: p for name, p in parameters.items() if name.startswith(objective.trains)}


def losses_and_gradients(
    model: Model, sizes: Sizes
) -> Callable[[AnyArrays, AnyArrays, AnyArrays], tuple[AnyArrays, AnyArrays]]:
    """Make ``(parameters, state, inputs) -> (losses, gradients)`` of all objectives.

    The gradients of each objective are those of the parameters that it trains. All are computed at
    the given parameters: no objective sees the update of another.
    """

    def compute(
        parameters: AnyArrays, state: AnyArrays, inputs: AnyArrays
    ) -> tuple[AnyArrays, AnyArrays]:
        losses, gradients = {}, {}
        for objective in model.objectives:
            (losses[objective.name], _), objective_gradients = _value_and_gradient(
                model, sizes, objective, parameters, state, inputs=inputs
            )
            gradients.update(objective_gradients)
        return losses, gradients

    return compute


def training_step(
    model: Model, sizes: Sizes, optimizer: str
) -> Callable[..., tuple[AnyArrays, AnyArrays, Any, AnyArrays]]:
    """Make ``(parameters, state, slots, inputs, number) -> (parameters, state, slots, losses)``.

    The step trains the objectives in their order, each with a separate optimiser. ``slots`` come
    from :func:`initial_slots`. ``number`` counts from 1.
    """

    def step(
        parameters: AnyArrays, state: AnyArrays, slots: Any, inputs: AnyArrays, number: Any
    ) -> tuple[AnyArrays, AnyArrays, Any, AnyArrays]:
        losses, slots = {}, list(slots)
        for place, objective in enumerate(model.objectives):
            (losses[objective.name], moved), gradients = _value_and_gradient(
                model, sizes, objective, parameters, state, inputs=inputs
            )
            trained = trained_by(objective, parameters)
            trained, slots[place] = update(
                optimizer, trained, gradients, state=slots[place], step=number
            )
            parameters = {**parameters, **trained}
            state = {**state, **{n: v for n, v in moved.items() if n.startswith(objective.moves)}}
        return parameters, state, slots, losses

    return step


def initial_slots(model: Model, optimizer: str, parameters: AnyArrays) -> list[Any]:
    """Make the state of every objective's optimiser before the first step."""
    return [
        initial_state(optimizer, trained_by(objective, parameters))
        for objective in model.objectives
    ]


def _value_and_gradient(
    model: Model,
    sizes: Sizes,
    objective: Objective,
    parameters: AnyArrays,
    state: AnyArrays,
    *,
    inputs: AnyArrays,
) -> Any:
    """Compute ((loss, new state), gradients) of one objective."""

    def loss(trained: AnyArrays) -> tuple[Any, AnyArrays]:
        layers = JaxLayers({**parameters, **trained}, state, training=True)
        outputs = (objective.forward or model.forward)(layers, sizes, inputs)
        arguments = [outputs[name] for name in objective.outputs]
        arguments += [inputs[name] for name in objective.targets]
        return getattr(layers, objective.loss)(*arguments), layers.state

    return jax.value_and_grad(loss, has_aux=True)(trained_by(objective, parameters))


def generation(model: Model, sizes: Sizes) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Make ``begin`` and ``further`` for greedy decoding with a key-value cache.

    ``begin(parameters, prompt) -> (token, cache)`` reads the prompt and returns the first token,
    (batch,). ``further(parameters, token, position, cache) -> (token, cache)`` returns the token
    after ``token``, whose position is ``position``.
    """
    generation = model.generation
    assert generation is not None

    def begin(parameters: AnyArrays, prompt: Any) -> tuple[Any, Any]:
        layers = JaxLayers(parameters)
        tokens, cache = generation.first(layers, sizes, prompt)
        logits, cache = generation.advance(layers, sizes, tokens, 0, cache)
        return layers.most_likely(logits), cache

    def further(parameters: AnyArrays, token: Any, position: Any, cache: Any) -> tuple[Any, Any]:
        layers = JaxLayers(parameters)
        logits, cache = generation.advance(layers, sizes, token[:, None], position, cache)
        return layers.most_likely(logits), cache

    return begin, further

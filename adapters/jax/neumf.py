"""Neural matrix factorisation over a pytree of parameters.

Follows https://docs.jax.dev/en/latest/101/pytrees.html; embeddings are rows of a table by
``jax.numpy`` indexing.
"""

import jax
import jax.numpy as jnp

from levelfield.adapters.jax.layers import dense


def build(sizes):
    """-> ``predict(parameters, user, item)`` -> logits (batch, 1)."""
    hidden = [f"hidden{number}" for number in range(1, len(sizes["tower"]))]

    def predict(parameters, user, item):
        def rows(part):
            user_table = parameters[f"{part}_user"]["embedding"]
            item_table = parameters[f"{part}_item"]["embedding"]
            return user_table[user], item_table[item]

        factor_user, factor_item = rows("factor")
        x = jnp.concatenate(rows("tower"), axis=-1)
        for name in hidden:
            x = jax.nn.relu(dense(parameters[name], x))
        x = jnp.concatenate([factor_user * factor_item, x], axis=-1)
        return dense(parameters["logits"], x)

    return predict

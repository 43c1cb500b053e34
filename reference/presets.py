"""Sizes of a preset: a built-in one, one at another sequence length, or one that a user added."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from levelfield.reference.errors import BadDefinition, UnknownName

TIME = "+time="
MOST_TIME = 1 << 16
MOST_BATCH = 1 << 20  # a trace marks every example; that of a recommender takes no second at this


@dataclass(frozen=True)
class OwnPreset:
    """A preset that is not built in: the sizes of ``base`` with ``changes``."""

    base: str
    changes: Mapping[str, Any]


OWN_PRESETS: dict[str, OwnPreset] = {}  # by name; levelfield.reference.registry.add_preset fills it


def preset_sizes(
    model: str,
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    *,
    derive: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Mapping[str, Any]:
    """Return the sizes of a preset of a model, also at another length, such as small+time=128.

    ``presets``: the model's built-in ones. ``derive`` gives the sizes that follow from others; they
    are part of the result, and no preset sets them. Raises :class:`UnknownName` with the nearest
    valid names, and :class:`BadDefinition` where a preset that a user added does not fit the model.
    """
    stated = _stated(model, presets, preset, derive)
    return {**stated, **derive(stated)}


def _stated(
    model: str,
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    derive: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Mapping[str, Any]:
    base, swept, time = preset.partition(TIME)
    where = f"model {model}"
    if base in presets:
        sizes = presets[base]
    elif base in OWN_PRESETS:
        sizes = _own_sizes(model, presets, base, derive)
    else:
        raise UnknownName("preset", preset, [*presets, *OWN_PRESETS], where=where)
    if not swept:
        return sizes
    if "time" not in sizes:
        raise UnknownName("preset", preset, [base], where=where)
    # At least as many positions as must be predicted, at most as many as have embeddings.
    least, most = sizes.get("masked", 1), sizes.get("positions", MOST_TIME)
    if not time.isdecimal() or not least <= int(time) <= most:
        near = [f"{base}{TIME}{end}" for end in (least, most)]
        raise UnknownName("preset", preset, near, where=where)
    return {**sizes, "time": int(time)}


def _own_sizes(
    model: str,
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    derive: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Mapping[str, Any]:
    own, where = OWN_PRESETS[preset], f"preset {preset} for model {model}"
    if own.base not in presets:
        raise UnknownName("base", own.base, presets, where=where)
    sizes = presets[own.base]
    derived = derive(sizes)
    for key, value in own.changes.items():
        if key in derived:
            raise BadDefinition(
                f"{key} in {where} follows from its other sizes; set one of {', '.join(sizes)}"
            )
        if key not in sizes:
            raise UnknownName("size", key, sizes, where=where)
        if not _alike(value, sizes[key]):
            usual = json.dumps(sizes[key])
            raise BadDefinition(
                f"{key} = {json.dumps(value)} in {where}; write it as in {own.base}: {usual}"
            )
    return {**sizes, **own.changes}


def _alike(value: Any, usual: Any) -> bool:
    """Whether two sizes are of one kind: positive numbers, texts or lists of such."""
    if isinstance(usual, tuple):
        return isinstance(value, tuple) and all(_alike(item, usual[0]) for item in value)
    if type(value) is not type(usual):
        return False
    return isinstance(value, str | bool) or value > 0

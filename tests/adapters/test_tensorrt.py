"""TensorRT is refused with its reason, whatever of it is there; the library is a stand-in."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from levelfield.adapters.base import Unsupported


def refused(monkeypatch: pytest.MonkeyPatch, device: str, builder: Any) -> str:
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    fake = SimpleNamespace(__version__="10.0", Logger=logger, Builder=builder)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.delitem(sys.modules, "levelfield.adapters.tensorrt", raising=False)
    module = importlib.import_module("levelfield.adapters.tensorrt")
    with pytest.raises(Unsupported) as caught:
        module.Adapter(device, "engine", 1, "float32")
    return str(caught.value)


def without_gpu(logger: Any) -> None:
    raise TypeError("pybind11::init(): factory function returned nullptr")


def test_every_refusal_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NVIDIA's GPUs only" in refused(monkeypatch, "cpu", without_gpu)
    assert "finds no GPU" in refused(monkeypatch, "cuda", without_gpu)
    assert "10.0 is here" in refused(monkeypatch, "cuda", lambda logger: object())

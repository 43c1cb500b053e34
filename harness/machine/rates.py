"""The rates of a machine that a session measures."""

from __future__ import annotations

PRODUCT, COPY = "matrix product", "copy"

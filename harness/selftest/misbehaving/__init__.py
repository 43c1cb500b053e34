"""A framework that works correctly, or fails in the one way that its mode names.

By it the harness is tested: every fault that a comparison must notice is a mode (``env.toml``).
``computing`` holds what is wrong in the answers or in the process, ``timing`` what is wrong in the
time and memory that it takes, ``decoding`` what is wrong with first tokens.
"""

from harness.selftest.misbehaving.decoding import Adapter

__all__ = ["Adapter"]

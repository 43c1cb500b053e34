"""A framework that works correctly, or fails in the one way that its mode names.

The harness tests itself with this framework: every fault that a comparison must notice is a mode
(``env.toml``). ``computing`` holds faults in the answers or in the process. ``timing`` holds faults
in the time and memory of the process. ``decoding`` holds faults in first tokens.
"""

from levelfield.harness.selftest.misbehaving.decoding import Adapter

__all__ = ["Adapter"]

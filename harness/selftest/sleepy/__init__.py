"""A framework that takes a known time to import."""

import time

from levelfield.harness.selftest.misbehaving import Adapter

IMPORT_SECONDS = 3.0

time.sleep(IMPORT_SECONDS)

__all__ = ["Adapter"]

"""How many blocks the levels of a run have."""

from __future__ import annotations

LOOKS = (3, 4, 6, 10, 15, 20, 30)  # numbers of blocks at which a verdict may be taken
LEVELS = {"smoke": (), "quick": LOOKS[:3], "standard": LOOKS[:6], "thorough": LOOKS}

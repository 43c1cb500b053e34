"""The harness proves itself: what ``levelfield selftest`` runs and compares with its goals."""

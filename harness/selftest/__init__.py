"""The self-test: what ``levelfield selftest`` runs and compares with its goals."""

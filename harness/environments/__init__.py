"""The environments: Python interpreters in which frameworks run."""

"""The plan: frameworks, suites and the cells that follow from them."""

"""The harness: plans comparisons, runs them, proves the answers and reports what was measured."""

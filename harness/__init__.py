"""The engine: command line, plan, environments, worker, gate, measurement, store, report."""

"""The engine: the order of events in a run, from the session to the last status."""

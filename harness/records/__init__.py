"""The records: files of a run, and the same data as tables."""

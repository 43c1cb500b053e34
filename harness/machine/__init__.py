"""The machine: its description, its best rates, and its other load during a run."""

"""One folder per framework: the adapter, its environment, one short idiomatic file per model."""

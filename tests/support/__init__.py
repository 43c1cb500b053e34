"""What several test modules need; no test module imports another one."""

"""The advice: which framework to take for a stated need."""

"""The statistics of verdicts: numbers in, words out. They know no frameworks and no records."""

"""The proof: cases and their answers, the gate, the checks and the lessons."""

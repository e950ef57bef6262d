"""The pure core: rows, inputs, commands, and the decisions between them. No clock, no I/O, no randomness."""

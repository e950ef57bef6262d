"""What users write with: apps, functions, steps. It speaks the protocol and never sees the engine."""

VERSION = "0.1.0"

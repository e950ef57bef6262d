"""The machines of the other primitives, behind the same door as the engine's: pure, they share its rows, timers and leases."""

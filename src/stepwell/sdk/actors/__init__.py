"""Actors: one instance for each name in the whole system, with storage of its own, turns and an alarm."""

"""Durable Objects over actors: ids, namespaces, stubs, and inside an object its state, storage and SQL."""

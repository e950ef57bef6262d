"""Durable background jobs and workflows."""

"""Exceptions that a Worker's own code raises and catches by Cloudflare's names."""

from __future__ import annotations


class NonRetryableError(Exception):
    """Raise it in a step of a workflow: no retry follows."""

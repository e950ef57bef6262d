"""Exceptions that a Worker's own code raises and catches by Cloudflare's names."""

from __future__ import annotations


class NonRetryableError(Exception):
    """Raise it in a step of a workflow: no retry follows."""


class WorkflowError(Exception):
    """What was asked of a workflow's instance cannot be."""


class WorkflowTimeoutError(TimeoutError):
    """A step, or a wait for an event, has taken longer than it may."""


class BindingError(Exception):
    """What a binding refuses, or could not do: an `Error` in JavaScript's words."""

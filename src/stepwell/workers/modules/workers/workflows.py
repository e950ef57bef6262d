"""`workers.workflows`: what a workflow's steps may raise."""

from stepwell.workers.errors import NonRetryableError

__all__ = ["NonRetryableError"]

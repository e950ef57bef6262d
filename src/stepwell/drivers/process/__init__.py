"""User code in child processes of the server: a step that burns CPU, leaks or crashes harms no other app, timer or request."""

from stepwell.drivers.process.driver import ProcessDriver

__all__ = ["ProcessDriver"]

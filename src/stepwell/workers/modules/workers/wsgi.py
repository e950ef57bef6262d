"""`workers.wsgi`: WSGI applications behind `fetch`."""

from stepwell.workers.gateway.options import EncodeBody, Options
from stepwell.workers.gateway.wsgi import entrypoint, fetch

__all__ = ["EncodeBody", "Options", "entrypoint", "fetch"]

"""ASGI and WSGI applications as what a Worker's `fetch` answers with."""

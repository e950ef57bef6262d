"""Requests, responses, headers, forms and blobs as Python Workers know them. They know nothing of handlers, bindings or servers."""

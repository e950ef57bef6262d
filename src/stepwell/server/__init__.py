"""HTTP over a node: what SDKs call, what people and the page call, and the page. ASGI; the hot routes are bare."""

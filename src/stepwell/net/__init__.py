"""I/O that knows nothing of ours: an HTTP/1.1 client and framed sockets. What a request or a frame means is not known here."""

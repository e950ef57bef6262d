"""What `env` binds: namespaces, queues, databases and other Workers, in Cloudflare's shapes over the SDK. None of it knows a server."""

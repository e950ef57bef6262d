"""GraphQL over the server's readers: what SDKs' tools and tests ask (inngest-protocol §8). Nothing inside the server depends on it."""

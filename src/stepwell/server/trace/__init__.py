"""A run as a tree of spans, of a live run as of an ended one: made from rows when asked for. GraphQL and `/v2` show it."""

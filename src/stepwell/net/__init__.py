"""HTTP and sockets: I/O without knowledge of ours."""

"""How a call reaches user code: in this process, in a child process, over HTTP. One method each; nothing of store or engine."""

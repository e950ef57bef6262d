"""What a process of a project does for each kind of handlers."""

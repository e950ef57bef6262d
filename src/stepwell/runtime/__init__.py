"""The only place with loops, tasks and clocks: the heartbeat, and who feeds it: dispatcher, timekeeper, callers."""

"""Projects written for Cloudflare's Python Workers, run under plain CPython with Stepwell's own queues, schedules, runs and stores."""

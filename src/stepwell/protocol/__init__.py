"""What crosses a wire: events, function configurations, calls and their answers, signatures, frames. Pure: no I/O, no clock."""

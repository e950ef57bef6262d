"""Flow control: what a function's settings do to the runs that events ask for. A file for each setting, with its own state.

The order, the same for every run (inngest-protocol §11.2):

1. when it is asked for: **idempotency** of the event's id (`routing`), then **batch** (wait with others), else **rate limit** and the
   idempotency key (drop), then **debounce** (wait for the last event);
2. when it is made: **singleton** (skip, or cancel the other one), **priority** (its place in its lane);
3. when it is claimed: **throttle** and **concurrency** of whole runs (its start), **concurrency** of calls (each of its calls).

`gates` evaluates a function's expressions on an event, once; `ledger` collects what one transition does to the rows of the first two
stages; `scheduling` takes a run through them; `lanes` (one folder up) claims. `why` tells what a run waits for.
"""

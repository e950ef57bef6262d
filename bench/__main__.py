"""Run the measurements one after the other, print a table, write `bench/results.json`."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

from bench import actors, connect, flow, inprocess, overhttp, queues, realtime, sdk, waits, workers
from bench.result import Result


def main() -> None:
    """`python -m bench [--quick]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that all runs")
    parser.add_argument("--json", type=Path, default=Path("bench/results.json"))
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as folder:
        for measure in (
            *inprocess.ALL,
            *overhttp.ALL,
            *connect.ALL,
            *realtime.ALL,
            *flow.ALL,
            *waits.ALL,
            *actors.ALL,
            *queues.ALL,
            *sdk.ALL,
            *workers.ALL,
        ):
            found = measure(Path(folder), scale)
            for result in found:
                print(f"  {result.name:<58} {result.value:>12,.1f} {result.unit}", flush=True)
            results += found
    told = {"machine": f"{platform.machine()}, Python {platform.python_version()}", "results": [vars(result) for result in results]}
    options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()

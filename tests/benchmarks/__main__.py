"""`python -m tests.benchmarks [--only NAME] [--full]`: runs the benchmarks and writes bench.json.

Each benchmark is a module with `run(full) -> list[Row]`, listed here by hand in the order of BENCHMARKS.md.
"""

import argparse
import json
import time
from importlib import import_module
from pathlib import Path

import tests.servers

BENCHMARKS = {
    "list_page": "P1",
    "enqueue_to_start": "P6",
    "scrape": "P10",
    "proxy_overhead": "S1",
    "dynamic_batching": "S2",
    "scale_reaction": "S3",
    "rolling_update": "S4",
    "first_endpoint": "S12",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    rows = []
    try:
        for name in [options.only] if options.only else BENCHMARKS:
            started = time.monotonic()
            print(f"{BENCHMARKS[name]} {name} ...", flush=True)
            for row in import_module(f"tests.benchmarks.{name}").run(full=options.full):
                rows.append(row)
                print(row.line(), flush=True)
            print(f"   {time.monotonic() - started:.0f} s", flush=True)
    finally:
        Path("bench.json").write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")
        tests.servers.stop()
    missed = [row for row in rows if row.met is False]
    print(f"{len(rows)} measures, {len(missed)} targets missed: see bench.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

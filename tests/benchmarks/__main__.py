"""`python -m tests.benchmarks [--only NAME] [--full]`: runs the benchmarks and writes bench.json.

Each benchmark is a module with `run(full) -> list[Row]`, listed here by hand in the order of BENCHMARKS.md. One that
fails is told and the others are run; the exit status is then 1.
"""

import argparse
import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import tests.servers

BENCHMARKS = {
    "list_page": "P1",
    "enqueue_to_start": "P6",
    "scrape": "P10",
    "reconcile_pass": "P14",
    "autoscale_signal": "P15",
    "proxy_overhead": "S1",
    "dynamic_batching": "S2",
    "scale_reaction": "S3",
    "rolling_update": "S4",
    "optimizer_speedup": "S5",
    "distillation": "S5",
    "job_overhead": "S6",
    "plan_latency": "S7",
    "event_to_page": "S8",
    "first_endpoint": "S12",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    chosen = {options.only: BENCHMARKS[options.only]} if options.only else BENCHMARKS
    entries: list[dict[str, Any]] = []
    broken = []
    try:
        for name, id in chosen.items():
            started = time.monotonic()
            print(f"{id} {name} ...", flush=True)
            try:
                rows = import_module(f"tests.benchmarks.{name}").run(full=options.full)
            except Exception:  # noqa: BLE001  whatever it is, the others can be measured
                broken.append(name)
                traceback.print_exc()
                rows = []
            for row in rows:
                entries.append(row.to_json(id=id, name=name))
                print(row.line(id=id, name=name), flush=True)
            print(f"   {time.monotonic() - started:.0f} s", flush=True)
    finally:
        Path("bench.json").write_text(json.dumps(entries, indent=1) + "\n")
        tests.servers.stop()
    missed = [entry for entry in entries if entry["met"] is False]
    print(f"{len(entries)} measures, {len(missed)} targets missed: see bench.json")
    if broken:
        print(f"not measured, because of an error (above): {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The real node with the stand-in replica as its stack: python node_for_tests.py"""

import sys
from pathlib import Path

from deployments.domain.workload import Workload
from deployments.targets.local.node import main

STAND_IN = Path(__file__).with_name("stand_in_replica.py")


def start_command(workload: Workload, config: Path) -> tuple[str, ...]:
    if workload.stack != "stand-in":
        raise LookupError(f"there is no stack “{workload.stack}”")
    return (sys.executable, str(STAND_IN), str(config))


main(start_command=start_command)

"""The real node with the stand-in replica as its stack: python node_for_tests.py START_DEADLINE_S"""

import sys
from dataclasses import replace
from pathlib import Path

from deployments.targets.local.layout import NodeSettings
from deployments.targets.local.node import main

STAND_IN = Path(__file__).with_name("stand_in_replica.py")


def start_command(stack: str, config: Path) -> tuple[str, ...]:
    if stack != "stand-in":
        raise LookupError(f"there is no stack “{stack}”")
    return (sys.executable, str(STAND_IN), str(config))


settings = replace(NodeSettings.from_environment(), start_deadline_s=float(sys.argv[1]))
main(settings, start_command=start_command)

"""The edge as a process of the table. Envoy by itself drops what it is answering when it is told to stop.

    python -m controlplane.embedded.edge_process HOME

SIGTERM: no new connection is taken, what was asked is answered, then Envoy ends. SIGKILL takes Envoy along.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from controlplane.embedded import edge
from controlplane.embedded.home import Home
from controlplane.embedded.spawn import spawn

DRAIN_S = 1.0


def main() -> None:
    home = Home(root=Path(sys.argv[1]))
    envoy = spawn(edge.envoy(home), environment=os.environ, cwd=home.root, stdout=sys.stdout.fileno())

    def stop(_number: int, _frame: FrameType | None) -> None:
        edge.drain(home, within_s=DRAIN_S)
        envoy.terminate()

    signal.signal(signal.SIGTERM, stop)
    code = envoy.wait()
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()

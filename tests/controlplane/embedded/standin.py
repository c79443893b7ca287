"""Runs `up` with real servers and a real edge around stand-ins for web, live and the workers.

A program of its own, so that the tests can kill it. The stand-ins are real processes that listen, print,
ignore signals or start processes of their own, as the real ones may.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from controlplane.embedded import processes, up
from controlplane.embedded.errors import SetupError
from controlplane.embedded.preflight import wanted
from controlplane.embedded.processes import Container, Process, Site, Tier

HTTP = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(0.8)
        body = (sys.argv[2] + " " + self.path + "\\n" + str(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        first = self.rfile.read(1)
        print("first byte of", left, flush=True)
        self.rfile.read(left - 1)
        self.do_GET()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
WAIT = "import signal; print('working', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('working', flush=True)\n"
    "while True: signal.pause()"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}])"
NODE = """
import os, signal, subprocess, sys
name = os.environ["SLIPWAY_HOME"] + "/node/replica.json"
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", name], start_new_session=True,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={})
print("replica", child.pid, flush=True)
signal.signal(signal.SIGTERM, lambda *_: (child.terminate(), child.wait(), sys.exit(0)))
signal.pause()
"""
SEES = (
    "import os, signal, sys; queue = sys.argv[sys.argv.index('-Q') + 1]\n"
    f"print(queue, 'sees', repr(os.environ.get({processes.SEES!r})), flush=True); signal.pause()"
)
SECRETS = (
    "import os, signal\n"
    "print(sorted({'DATABASE_URL', 'REDIS_URL', 'SLIPWAY_SECRET_KEY'} & set(os.environ)), flush=True); signal.pause()"
)


def _row(name: str, code: str, *arguments: str, tier: Tier = Tier.WORK) -> Process:
    argv = (sys.executable, "-c", code, *arguments)
    return Process(name=name, argv=argv, tier=tier, reads=("SLIPWAY_HOME",), container=Container(image="web"))


def rows(site: Site) -> tuple[Process, ...]:
    real = processes.table(site)
    chosen = {
        "plain": (
            replace(_row("node", NODE), death_signal=9, grace_s=6.0),
            _row("worker", PARENT),
            _row("nosy", SECRETS),
        ),
        "stubborn": (_row("stubborn", STUBBORN),),
        "workers": tuple(
            replace(row, argv=(sys.executable, "-c", SEES, *row.argv))
            for row in real
            if row.name.startswith("worker-")
        ),
        "crashing": (_row("crashing", "print('no such module'); raise SystemExit(3)"),),
    }[os.environ.get("STANDIN_ROWS", "plain")]
    web = _row("web", HTTP, site.web.rpartition(":")[2], "web", tier=Tier.WEB)
    live = _row("live", HTTP, site.live.rpartition(":")[2], "live", tier=Tier.WEB)
    servers = tuple(row for row in real if row.tier is Tier.SERVERS)
    return (*servers, *chosen, live, web, *(row for row in real if row.name == "edge"))


MIGRATE: dict[str, str] = {
    "good": "import os, psycopg, sys; psycopg.connect(os.environ['DATABASE_URL']).close(); "
    "print('migrated', *sys.argv[1:])",
    "own": f"print({processes.OWN_LOGIN!r})",
    "bad": "print('relation is gone'); raise SystemExit(1)",
}


def main(run: Callable[..., None] = up.run) -> None:
    code = MIGRATE[os.environ.get("STANDIN_MIGRATE", "good")]
    try:
        run(wanted(os.environ), rows=rows, prepare=("-c", code))
    except SetupError as error:
        sys.exit(f"error: {error.title}")


if __name__ == "__main__":
    main()

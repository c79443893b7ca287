"""A replica of no model: the probes, the infer path and the drain of a real one, in a tenth of a second.

    python stand_in_replica.py CONFIG.json

The workload's environment bends it: STAND_IN_EXIT (exit code after 61 lines), STAND_IN_NEVER_READY,
STAND_IN_STATUS (every inference answers so), STAND_IN_SLOW_MS (time of one inference).
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

CONFIG = json.loads(Path(sys.argv[1]).read_text())
STATUS = int(os.environ.get("STAND_IN_STATUS", "200"))
SLOW_S = float(os.environ.get("STAND_IN_SLOW_MS", "2")) / 1000


async def ready(request: web.Request) -> web.Response:
    if "STAND_IN_NEVER_READY" in os.environ or (Path(os.environ["HOME"]) / "not-ready").exists():
        return web.Response(status=503)
    return web.json_response({"ready": True})


async def live(request: web.Request) -> web.Response:
    return web.json_response({"live": True})


async def infer(request: web.Request) -> web.Response:
    body = await request.read()
    await asyncio.sleep(float(request.query.get("slow_ms", SLOW_S * 1000)) / 1000)
    answer = {
        "pid": os.getpid(),
        "revision": CONFIG["revision"],
        "replica": CONFIG["replica"],
        "path": request.path,
        "bytes": len(body),
        "environment": sorted(os.environ),
    }
    return web.json_response(answer, status=STATUS)


async def main() -> None:
    app = web.Application(client_max_size=32 * 1024**2)
    app.router.add_get("/v2/health/ready", ready)
    app.router.add_get("/v2/health/live", live)
    app.router.add_post("/v2/models/{name}/infer", infer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=30)
    await runner.setup()
    await web.TCPSite(runner, CONFIG["host"], CONFIG["port"]).start()
    print("listening", CONFIG["port"], flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    print("draining", flush=True)
    await runner.cleanup()


if "STAND_IN_EXIT" in os.environ:
    for number in range(60):
        print(f"line {number} before the end", flush=True)
    print("the model \x1b[31mcannot\x1b[0m be loaded\x00", flush=True)
    sys.exit(int(os.environ["STAND_IN_EXIT"]))
asyncio.run(main())

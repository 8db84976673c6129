"""Stands in for `python -m ops` where a test is about the balancer: `serve` answers with what it was asked.

Run by path, never imported. A request with X-Die-Once: FILE makes the first replica that gets it make FILE and die;
one with X-Refuse: S is refused, to be tried again after S seconds; one with X-Wait-For: FILE makes FILE.<its id>, and
is answered once FILE is there; one with X-No-Model: DIGITS is answered by the slots in them as by a replica without a
model.
"""

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

from aiohttp import web


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve", "consume"])
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--admin-port", type=int, required=True)
    parser.add_argument("--supervised", action="store_true")
    parser.add_argument("--claim", action="store_true")
    parser.add_argument("--insecure", action="store_true")
    asyncio.run(_run(parser.parse_args()))


async def _run(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async def answer(request: web.Request) -> web.Response:
        _die_once(request)
        if "X-Wait-For" in request.headers:
            await _wait_for(Path(request.headers["X-Wait-For"]), request.headers["X-Request-Id"])
        if str(options.slot) in request.headers.get("X-No-Model", ""):
            return web.Response(status=504 if "X-Recollect-Balancer" in request.headers else 503, text="no model")
        if "X-Refuse" in request.headers:
            refusal = {"Retry-After": request.headers["X-Refuse"], "X-Slot": str(options.slot)}
            return web.Response(status=503, text="the spool is full", headers=refusal)
        answer = {
            "slot": options.slot,
            "method": request.method,
            "raw_path": request.raw_path,
            "key": request.headers.get("Idempotency-Key"),
            "request_id": request.headers.get("X-Request-Id"),
            "forwarded_for": request.headers.get("X-Forwarded-For"),
            "authorization": request.headers.get("Authorization"),
            "api_key": request.headers.get("X-API-Key"),
            "origin": request.headers.get("Origin"),
            "length": len(await request.read()),
        }
        response = web.Response(text=json.dumps(answer), content_type="application/json")
        if stopping.is_set():
            response.force_close()
        return response

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers={"X-Process": str(os.getpid())})

    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    admin = web.Application()
    admin.router.add_get("/healthz", alive)
    admin.router.add_get("/readyz", alive)
    runner = web.AppRunner(app, keepalive_timeout=15, access_log=None)
    admin_runner = web.AppRunner(admin, access_log=None)
    await admin_runner.setup()
    await web.TCPSite(admin_runner, "127.0.0.1", options.admin_port).start()
    if options.verb == "serve":
        await runner.setup()
        site = web.TCPSite(runner, options.host, options.port, backlog=1024)
        await site.start()
        await stopping.wait()
        # As a replica drains: no new connections, and what is open is served until nginx lets go of it.
        await site.stop()
        deadline_s = asyncio.get_running_loop().time() + 8
        while runner.server is not None and runner.server.connections:
            if asyncio.get_running_loop().time() > deadline_s:
                break
            await asyncio.sleep(0.01)
        await runner.cleanup()
    await stopping.wait()
    await admin_runner.cleanup()


async def _wait_for(gate: Path, name: str) -> None:
    gate.with_name(f"{gate.name}.{name}").touch()
    while not await asyncio.to_thread(gate.exists):  # noqa: ASYNC110 (nothing tells when a file appears)
        await asyncio.sleep(0.01)


def _die_once(request: web.Request) -> None:
    trigger = Path(request.headers.get("X-Die-Once", "/"))
    if not trigger.exists():
        trigger.write_text(request.headers["Idempotency-Key"])
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

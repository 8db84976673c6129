"""The benchmark of the recommend route, and its yardstick."""

from typing import Annotated

import typer

from ops.benchmarks import recommend_route
from ops.benchmarks.commands.options import Data, Json, Seed
from ops.benchmarks.report import note, report, require_ratio
from ops.benchmarks.workbench import HOST, Workbench, event_counts, pinned, two_cores, wait_until_archived
from service.errors import RunError

# A generator busier than this share of its core may be the limit of the faster server.
_GENERATOR_LIMIT = 0.9


def recommend(
    *,
    data: Data = "demo",
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of rounds.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round.")] = 8.0,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Kept-alive connections.")] = 64,
    seed: Seed = 1,
    min_ratio: Annotated[float | None, typer.Option(help="Objective: exit 1 if the ratio is lower.")] = None,
    as_json: Json = False,
) -> int:
    """Compare the recommend route, with all its telemetry, with an aiohttp hello world on one core."""
    server_core, generator_core = two_cores()
    with Workbench.temporary({generator_core}) as bench:
        note(f"training on {data}")
        users, model = bench.train(data)
        redis_url = bench.start_redis()
        consumer_admin_port = bench.start_consumer(redis_url)
        with pinned({server_core}):
            replica_port, replica_admin_port = bench.start_replica(redis_url)
            hello_port = bench.start_hello()
        comparison = recommend_route.compare(
            hello=(hello_port, [recommend_route.get("/")]),
            recommend=(replica_port, recommend_route.list_requests(users, seed)),
            rounds=rounds,
            seconds=seconds,
            connections=connections,
            settle=lambda: wait_until_archived([replica_admin_port]),
            on_progress=note,
        )
        telemetry = event_counts(replica_admin_port, consumer_admin_port)
    settings = {"data": data, "rounds": rounds, "seconds": seconds, "connections": connections, "seed": seed}
    figures = comparison.as_json() | {"model": model, "telemetry": telemetry, "settings": settings}
    title = f"{data}: {model['users']} users, {model['items']} items, {model['factors']} factors"
    report(figures, title, recommend_route.HEADINGS, recommend_route.rows(figures), as_json=as_json)
    failed = sum(one.failed for one in (*comparison.hello, *comparison.recommend))
    if failed:
        raise RunError(f"{failed} answers had a status other than 200, so the rates mean nothing.")
    if telemetry["dropped"] or telemetry["archived"] != telemetry["accepted"]:
        raise RunError(f"Telemetry was incomplete, so the rates mean nothing: {telemetry}.")
    if max(one.generator_share for one in comparison.hello) > _GENERATOR_LIMIT:
        note("warning: the generator was busy all the time, so hello world may be faster than measured.")
    require_ratio(comparison.ratio, min_ratio)
    return 0


def hello(port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]) -> int:
    """Run the yardstick: aiohttp's web.json_response on uvloop, without an access log."""
    import uvloop
    from aiohttp import web

    async def greet(_: web.Request) -> web.Response:
        return web.json_response({"message": "hello, world"})

    application = web.Application()
    application.router.add_get("/", greet)
    web.run_app(application, host=HOST, port=port, access_log=None, print=None, loop=uvloop.new_event_loop())
    return 0

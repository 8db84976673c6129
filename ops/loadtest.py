"""The load test: `recollect loadtest`, and the same program as `python ops/loadtest.py`.

`ops/load/` has its parts: `pacing` gives the send times, `population` and `traffic` the requests, `attack` sends them
over `http_connection`, outcomes are folded into a `summary`, and `load_report` renders it. The events are real: they
reach the archive and change lists.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run by path, Python puts this folder first on the path, where our modules would hide others of the same name.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [str(_here.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _here)]

import asyncio
import os
import random
import secrets
import signal
import time
from dataclasses import asdict, dataclass
from typing import Annotated
from urllib.parse import urlsplit

import orjson
import typer

from loadbalancer import roster
from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import address, reachable
from ops.console.progress import ProgressBar
from ops.load import load_report
from ops.load.attack import Attack, ClientRules
from ops.load.http_connection import HttpClient
from ops.load.load_report import LoadTestRun
from ops.load.pacing import Arrivals, schedule
from ops.load.population import Target, discover
from ops.load.summary import LoadObjectives, Summary
from ops.load.traffic import Mix, Traffic
from ops.options.presented_key import KeyFileOption, read_api_key
from service.config import from_env
from service.declared_settings import read
from service.errors import UsageError
from service.event_loop import run as run_loop

_BAR_EVERY_S = 0.5
_PROGRESS_LINE_EVERY_S = 10.0


def command(
    *,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The address of the service; by default the installation that runs here."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests per second, whether or not earlier ones are answered.")] = 100.0,
    duration: Annotated[float, typer.Option(help="Seconds of load.")] = 30.0,
    arrivals: Annotated[Arrivals, typer.Option(help="Evenly spaced, or of independent users.")] = "constant",
    connections: Annotated[int, typer.Option(help="The most open connections; further requests wait for one.")] = 64,
    users: Annotated[
        str, typer.Option(metavar="SHARES", help="Shares of the classes of users; hot ones recur often.")
    ] = "known=0.6,unknown=0.1,hot=0.3",
    feedback: Annotated[float, typer.Option(help="Share of requests that report events, which are real.")] = 0.15,
    ids: Annotated[
        Path | None, typer.Option(help="File of user[,item] lines; else ids are read from the running service.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same schedule, users and events.")] = 1,
    key_file: KeyFileOption = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Never retry; otherwise once after a broken connection, 502, 503 or 504.")
    ] = False,
    p99_ms: Annotated[float | None, typer.Option(help="Objective: 99 % of requests answered within this time.")] = None,
    max_failures: Annotated[int | None, typer.Option(help="Objective: the most requests that may fail.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Send requests at a given rate and report latencies, from the intended send times, and failures by cause."""
    plan = LoadTestPlan(
        target=parse_url(running_url() if url is None else url, read_api_key(key_file)),
        rate_rps=_checked("--rate", rate, above=0),
        duration_s=_checked("--duration", duration, above=0),
        arrivals=arrivals,
        connections=int(_checked("--connections", connections, above=0)),
        mix=parse_mix(users, feedback),
        ids_file=ids,
        seed=seed,
        retries=0 if raw else 1,
        objectives=LoadObjectives(
            p99_ms=None if p99_ms is None else _checked("--p99-ms", p99_ms, above=0),
            max_failures=None if max_failures is None else int(_checked("--max-failures", max_failures, above=-1)),
        ),
    )
    return loadtest(plan, as_json=as_json)


@dataclass(frozen=True)
class LoadTestPlan:
    """The checked options of a load test."""

    target: Target
    rate_rps: float
    duration_s: float
    arrivals: Arrivals
    connections: int
    mix: Mix
    ids_file: Path | None
    seed: int
    retries: int
    objectives: LoadObjectives


def loadtest(plan: LoadTestPlan, *, as_json: bool) -> int:
    """Run a load test and print its report.

    Returns:
        The exit code: 1 if an objective was missed or no request had a good answer.

    Raises:
        DataError: The ids file cannot be used.
        RunError: Nothing answers at the target.
    """
    if plan.target.host not in {"localhost", "::1"} and not plan.target.host.startswith("127."):
        _note(f"warning: {plan.target} is not this machine; its users will notice, and its archive keeps the events.")
    run, summary = run_loop(_run(plan))
    if as_json:
        print(orjson.dumps(load_report.as_json(run, summary), option=orjson.OPT_INDENT_2).decode())
    elif sys.stdout.isatty():
        print(load_report.as_table(run, summary))
    else:
        print("\n".join(load_report.as_lines(run, summary)))
    for sentence in run.missed:
        _note(sentence)
    if run.missed and (warning := load_report.lag_warning(summary)) is not None:
        _note(warning)
    return 1 if run.missed else 0


async def _run(plan: LoadTestPlan) -> tuple[LoadTestRun, Summary]:
    # Separate generators: the jitter of a retry must not change the next user.
    pacing_rng, traffic_rng, jitter_rng = (
        random.Random(f"{plan.seed}/{use}")  # noqa: S311  # chance that can be repeated, not secrets
        for use in ("pacing", "traffic", "jitter")
    )
    client = HttpClient(plan.target.host, plan.target.port, plan.connections)
    summary = Summary()
    try:
        population = await discover(client, plan.target, plan.ids_file, from_env(os.environ).models_dir)
        sources = {
            "users": f"{len(population.users)} from {population.users_from}",
            "items": f"{len(population.items)} from {population.items_from}",
        }
        for name, source in sources.items():
            _note(f"{name}: {source}")
        # Idempotency keys differ between runs, or the service would drop a second run's events as duplicates.
        run_id = f"loadtest-{secrets.token_hex(6)}"
        traffic = Traffic(
            population,
            plan.mix,
            traffic_rng,
            headers=plan.target.headers,
            base_path=plan.target.base_path,
            run_id=run_id,
        )
        attack = Attack(client, traffic, ClientRules(retries=plan.retries), jitter_rng, summary.add)
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            attack.stop()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, interrupt)
        progress = asyncio.create_task(_show_progress(plan, summary))
        try:
            took_s = await attack.run(schedule(plan.arrivals, plan.rate_rps, plan.duration_s, pacing_rng))
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            progress.cancel()
            await asyncio.gather(progress, return_exceptions=True)
    finally:
        await client.aclose()
    missed = plan.objectives.missed(summary)
    total = summary.total()
    if total.failed == total.requests and not missed:
        missed.append(f"None of the {total.requests} requests had a good answer.")
    names = ("arrivals", "connections", "seed", "retries")
    settings = {name: getattr(plan, name) for name in names} | {
        "run_id": run_id,
        "mix": asdict(plan.mix),
        "objectives": asdict(plan.objectives),
    }
    # The last request is sent one gap before the end; without that gap the rate would be too high.
    duration_s = took_s if interrupted else max(took_s, plan.duration_s)
    return LoadTestRun(str(plan.target), plan.rate_rps, duration_s, settings, sources, missed, interrupted), summary


async def _show_progress(plan: LoadTestPlan, summary: Summary) -> None:
    """Draw a bar on a terminal, and print a line every few seconds elsewhere, until cancelled."""
    start_s = time.monotonic()
    # Drawn from this loop: a drawing thread would hold the interpreter lock and delay requests.
    with ProgressBar(from_a_thread=False) as bar:
        while True:
            await asyncio.sleep(_BAR_EVERY_S if bar.is_drawn else _PROGRESS_LINE_EVERY_S)
            total = summary.total()
            counts = f"{total.requests} requests, {total.failed} failed"
            elapsed_s = time.monotonic() - start_s
            if bar.is_drawn:
                bar.show(counts, elapsed_s, plan.duration_s)
            else:
                bar.print(f"{elapsed_s:.0f} s of {plan.duration_s:g} s: {counts}")


def running_url() -> str:
    """Return the URL of the running installation, or the one of the settings.

    Raises:
        UsageError: It serves TLS.
    """
    require_plain_http()
    for row in roster.running_balancers(from_env(os.environ).home):
        if row.host is not None and row.port is not None:
            return f"http://{address(reachable(row.host), row.port)}"
    settings = read(BalancerSettings, os.environ)
    return f"http://{address(reachable(settings.host), settings.port)}"


def require_plain_http() -> None:
    """Refuse an installation with TLS, which the load generator has not.

    Raises:
        UsageError: Its balancer serves TLS.
    """
    if read(BalancerSettings, os.environ).tls_cert is not None:
        raise UsageError(
            "This installation's balancer serves TLS, and the load generator has plain HTTP only: name a plain address"
            " with --url, such as a replica's."
        )


def parse_url(url: str, key: str | None = None) -> Target:
    """Parse --url, for requests with an API key or None.

    Raises:
        UsageError: It is not of the form http://HOST[:PORT][/BASE].
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--url {url} cannot be read: {error}.") from None
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UsageError(f"--url must be of the form http://HOST[:PORT][/BASE], not {url!r}.")
    return Target(parts.hostname, port or 80, parts.path.rstrip("/"), key)


def parse_mix(users: str, feedback: float) -> Mix:
    """Parse --users, such as `known=0.6,unknown=0.1,hot=0.3`, and --feedback.

    A share that is not named is 0; the sum is scaled to 1.

    Raises:
        UsageError: An unknown name, a share that is not a number of 0 or more, or a sum of 0.
    """
    shares = {"known": 0.0, "unknown": 0.0, "hot": 0.0}
    for part in users.split(","):
        name, _, text = part.strip().partition("=")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if name not in shares or not 0 <= share < float("inf"):
            raise UsageError(f"--users must be like known=0.6,unknown=0.1,hot=0.3, not {users!r}.")
        shares[name] = share
    total = sum(shares.values())
    if total <= 0:
        raise UsageError("--users must give at least one class of users a share above 0.")
    if not 0 <= feedback <= 1:
        raise UsageError(f"--feedback must be a share from 0 to 1, not {feedback:g}.")
    return Mix(feedback=feedback, **{name: share / total for name, share in shares.items()})


def _checked(option: str, value: float, *, above: float) -> float:
    if not above < value < float("inf"):
        bound = "above 0" if above == 0 else "0 or more"
        raise UsageError(f"{option} must be a number {bound}, not {value:g}.")
    return value


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Run the command with these arguments, as `python ops/loadtest.py` does."""
    from ops.console.command_runner import run
    from ops.options.environment import adopt, working_directory

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("loadtest")(command)
    return run(app, argv, name="loadtest", first=lambda: adopt(os.environ, working_directory()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The failure drill: `recollect chaos`.

The invariant: the options exist once, here. What a drill is made of is in `ops/drill/`: a catalogue of faults, a
schedule, a load whose acknowledgements a ledger keeps, a watch, and a verdict. A drill against a system that it did not
start needs --yes, and whatever ends a drill undoes its faults.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.drill.faults.fault import Fault
from ops.drill.frozen_redis import Comparison
from ops.drill.stage import Plan, Stage
from ops.drill.system import System
from ops.load.population import Target
from ops.options.presented_key import KeyFileOption, read_api_key
from service.config import Config
from service.errors import UsageError

_DEMO = "demo"
# A model of this many users is trained in a second or two, and its lists cost what those of a bigger one cost.
_DEMO_SIZE = "demo:2000x1000x100000"
_DURATION_S = 30.0
_QUICK_DURATION_S, _QUICK_RATE_RPS, _QUICK_QUIET_S = 4.0, 100.0, 3.0
_QUIET_S = 10.0


def command(
    *,
    faults: Annotated[
        str | None,
        typer.Option(help="What to do, with commas between: names, rows such as R7, all, main (the default) or quick."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="What the system that is started is trained on; as for up.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas of the system that is started.")] = 3,
    rate: Annotated[float | None, typer.Option(help="Requests per second all the while; 500.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds for each fault; 30.")] = None,
    every: Annotated[
        float | None, typer.Option(help="Seconds from one blow to the next, for faults that are blows.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same schedule, users and events.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Half a minute of the main faults at 100 requests/s.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the timeline here.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Drill the system that runs in this RECOLLECT_HOME; needs --yes.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where that system answers, if not where its balancer says.")] = None,
    key_file: KeyFileOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, drill a system that is running.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder of the system that was started.")] = False,
    compare_telemetry: Annotated[
        bool, typer.Option("--compare-telemetry", help="Only compare lists with Redis frozen and running.")
    ] = False,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of runs for --compare-telemetry.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> int:
    """Kill, freeze and starve parts under load, and see whether anything was lost."""
    from ops.drill.faults.fault_catalogue import select
    from ops.drill.stage import Plan
    from service.config import from_env

    running = home is not None or url is not None or key_file is not None or yes
    if running and not yes:
        raise UsageError("This would kill parts of a running system; say --yes if that is what you want.")
    if running and (data is not None or keep):
        raise UsageError("--data and --keep are about a system that is started here, not about one that is running.")
    config = from_env({**os.environ, **({} if home is None else {"RECOLLECT_HOME": str(home)})})
    drill = Drill(
        plan=Plan(
            rate_rps=_above_0("--rate", rate, _QUICK_RATE_RPS if quick else 500.0),
            duration_s=_above_0("--duration", duration, _QUICK_DURATION_S if quick else _DURATION_S),
            quiet_s=_QUICK_QUIET_S if quick else _QUIET_S,
            every_s=None if every is None else _above_0("--every", every, 0.0),
            seed=seed,
        ),
        faults=tuple(select(faults or ("quick" if quick else "main"))),
        data=_DEMO_SIZE if data is None or data == _DEMO else data,
        replicas=replicas,
        config=config,
        running=running,
        url=url,
        key=read_api_key(key_file),
        keep=keep,
    )
    if compare_telemetry:
        return _print_comparison(_with_loop(drill.compare(pairs)), as_json=as_json)
    return _print_verdict(drill, _with_loop(drill.run()), report=report, as_json=as_json)


@dataclass(frozen=True)
class Drill:
    """One drill, its options checked.

    Attributes:
        plan: Rates and times.
        faults: What is done.
        data: What the system that is started is trained on.
        replicas: Of that system.
        config: Every setting of the service.
        running: Whether the system that runs in the configured home is drilled, rather than one of the drill's own.
        url: Where that one answers, None to ask its topology.
        key: The API key that it asks for, or None.
        keep: Whether the folder of what was started stays.
    """

    plan: Plan
    faults: tuple[Fault, ...]
    data: str
    replicas: int
    config: Config
    running: bool
    url: str | None
    key: str | None
    keep: bool

    async def run(self) -> tuple[list[Stage], list[tuple[Fault, str]]]:
        """Drill, in one installation for each setting that the faults need.

        Returns:
            The stages, and the faults for which there was no installation, with the reason.
        """
        from ops.drill.faults.fault import Setting

        stages: list[Stage] = []
        skipped: list[tuple[Fault, str]] = []
        for setting in Setting:
            faults = [fault for fault in self.faults if fault.setting is setting]
            if not faults:
                continue
            if setting is Setting.PREPARED and self.running:
                skipped += [(fault, "it needs a system that the drill starts itself") for fault in faults]
                continue
            stages.append(await self._stage(setting, faults))
        return stages, skipped

    async def compare(self, pairs: int) -> Comparison:
        """Compare lists with Redis frozen and running."""
        from ops.drill.faults.fault import Setting
        from ops.drill.frozen_redis import compare
        from ops.drill.needs import Need

        async with self._system(Setting.ANY) as (system, target):
            lack = system.lacks(Need.REDIS)
            if lack is not None:
                raise UsageError(f"Nothing can be compared: {lack}.")
            return await compare(
                system,
                target,
                pairs=pairs,
                run_s=self.plan.duration_s,
                rate_rps=self.plan.rate_rps,
                seed=self.plan.seed,
                say=_say,
            )

    async def _stage(self, setting: Any, faults: Sequence[Fault]) -> Stage:
        from ops.drill import stage
        from ops.drill.ledger import Ledger

        # A clock an hour behind must not put events before the first day that is looked at.
        since = (datetime.now(UTC) - timedelta(hours=2)).date()
        ledger = Ledger(self.config.pseudonymiser().pseudonym)
        async with self._system(setting) as (system, target):
            title = "as it was running" if self.running else setting.value
            return await stage.run(title, system, target, faults, self.plan, ledger, since, _say)

    @contextlib.asynccontextmanager
    async def _system(self, setting: Any) -> AsyncIterator[tuple[System, Target]]:
        from ops.drill import drill_installation
        from ops.drill.faults.fault import Setting

        if self.running:
            yield _running_system(self.config, self.url, self.key)
            return
        # Short: nginx and Redis have limits for paths.
        folder = Path(tempfile.mkdtemp(prefix="recollect-chaos-"))
        start = drill_installation.as_shipped if setting is Setting.ANY else drill_installation.prepared
        try:
            _say(f"starting a system in {folder}, {setting.value}")
            async with start(folder, self.data, self.replicas) as (system, target):
                yield system, target
        finally:
            if self.keep:
                _say(f"{folder} is kept")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _running_system(config: Config, url: str | None, key: str | None) -> tuple[System, Target]:
    from loadbalancer import roster
    from loadbalancer.topology import reachable
    from ops.drill.system import System
    from ops.load.population import Target
    from ops.loadtest import parse_url, require_plain_http

    rows = [row for row in roster.read(config.home) if row.name.startswith("nginx-")]
    if not rows:
        raise UsageError(f"Nothing runs in {config.home}: there is no run/topology.json with a balancer.")
    # The settings here may name the logs of another installation.
    logs = Path(rows[0].output).parent
    system = System(config.home, logs, {**os.environ, "RECOLLECT_HOME": str(config.home), "RECOLLECT_LOGS": str(logs)})
    host, port = rows[0].host, rows[0].port
    if url is not None:
        return system, parse_url(url, key)
    require_plain_http()
    if host is None or port is None:
        raise UsageError(f"The topology in {config.home} does not say where the balancer listens; name it with --url.")
    return system, Target(reachable(host), port, "", key)


def _with_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; SIGTERM ends it as Ctrl-C does, so that what was begun is undone."""
    from service.event_loop import run

    async def interruptible() -> Any:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            # Once: a second one would cut the undoing short.
            if not task.cancelling():
                _say("undoing what was done")
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        return await task

    try:
        return run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _print_verdict(
    drill: Drill, done: tuple[list[Stage], list[tuple[Fault, str]]], *, report: Path | None, as_json: bool
) -> int:
    import orjson

    from ops.drill import drill_text, verdict
    from ops.pages import drill_page

    stages, skipped = done
    cores = len(os.sched_getaffinity(0))
    concluded = verdict.conclude(stages, cores, skipped)
    about = _about(drill, cores)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(drill_page.render(concluded, stages, {"title": "Recollect: the failure drill", **about}))
        _say(f"the page is {report}")
    if as_json:
        print(orjson.dumps(verdict.as_json(concluded, stages, about), option=orjson.OPT_INDENT_2).decode())
    elif sys.stdout.isatty():
        from ops.console.terminal import console

        console().print(drill_text.as_table(concluded))
    else:
        print("\n".join(drill_text.as_lines(concluded)))
    if not as_json:
        _say(f"to repeat it: {about['command']}")
    return 0 if concluded.ok else 1


def _print_comparison(comparison: Comparison, *, as_json: bool) -> int:
    import orjson

    if as_json:
        print(orjson.dumps(comparison.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        print(comparison.as_lines()[-1])
    return 0 if comparison.ok else 1


def _about(drill: Drill, cores: int) -> dict[str, Any]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    try:
        recollect = version("recollect")
    except PackageNotFoundError:
        recollect = "unknown"
    plan = drill.plan
    options = ["recollect", "chaos", "--faults", ",".join(fault.name for fault in drill.faults)]
    options += ["--rate", f"{plan.rate_rps:g}", "--duration", f"{plan.duration_s:g}", "--seed", str(plan.seed)]
    options += [] if plan.every_s is None else ["--every", f"{plan.every_s:g}"]
    if not drill.running:
        options += ["--data", drill.data, "--replicas", str(drill.replicas)]
    else:
        options += ["--home", str(drill.config.home), "--yes"]
    return {
        "seed": plan.seed,
        "rate_rps": plan.rate_rps,
        "duration_s": plan.duration_s,
        "replicas": None if drill.running else drill.replicas,
        "cores": cores,
        "versions": {"recollect": recollect, "python": platform.python_version(), "system": platform.release()},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(options),
    }


def _above_0(option: str, value: float | None, default: float) -> float:
    number = default if value is None else value
    if not 0 < number < float("inf"):
        raise UsageError(f"{option} must be a number above 0, not {number:g}.")
    return number


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)

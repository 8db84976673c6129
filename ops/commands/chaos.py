"""`recollect chaos`: the failure drill. A drill of a system that it did not start needs --yes."""

import asyncio
import os
import platform
import shlex
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.console.terminal import console
from ops.options.presented_key import KeyFileOption, read_api_key
from ops.options.shared_options import JsonOption
from service.errors import UsageError

# Imported when the drill begins: `--help` needs none of it.
if TYPE_CHECKING:
    from ops.drill.drill import Drill
    from ops.drill.faults.fault import Fault
    from ops.drill.frozen_redis import FrozenRedisComparison
    from ops.drill.stage import Stage

_DEMO = "demo"
# Trains in a second or two; its lists cost as much as those of a larger model.
_DEMO_SIZE = "demo:2000x1000x100000"
_DURATION_S = 30.0
_QUICK_DURATION_S, _QUICK_RATE_RPS, _QUICK_QUIET_S = 4.0, 100.0, 3.0
_QUIET_S = 10.0


def command(
    *,
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Names of faults, rows such as R7, all, main (the default) or quick, comma separated."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Training data of the system that is started; as for up.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas of the system that is started.")] = 3,
    rate: Annotated[float | None, typer.Option(help="Requests per second throughout; by default 500.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds for each fault; by default 30.")] = None,
    every: Annotated[float | None, typer.Option(help="Seconds between injections of an instant fault.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same schedule, users and events.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Half a minute of the main faults at 100 requests/s.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the timeline here.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Drill the system that runs in this RECOLLECT_HOME; needs --yes.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of that system; by default its balancer's.")
    ] = None,
    key_file: KeyFileOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the drill of a running system.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder of the system that was started.")] = False,
    compare_telemetry: Annotated[
        bool, typer.Option("--compare-telemetry", help="Only compare lists with Redis frozen and running.")
    ] = False,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of runs for --compare-telemetry.")] = 7,
    as_json: JsonOption = False,
) -> int:
    """Inject faults under load, such as killed and frozen parts, and check that nothing was lost."""
    from ops.drill.drill import Drill
    from ops.drill.faults.fault_catalogue import select
    from ops.drill.stage import DrillSpec
    from service.config import from_env

    if report is not None:
        from ops.pages import page

        page.require_writable(report)
    running = home is not None or url is not None or key_file is not None or yes
    if running and not yes:
        raise UsageError("This would kill parts of a running system; confirm it with --yes.")
    if running and (data is not None or keep):
        raise UsageError("--data and --keep apply to a system that the drill starts, not to a running one.")
    config = from_env({**os.environ, **({} if home is None else {"RECOLLECT_HOME": str(home)})})
    drill = Drill(
        spec=DrillSpec(
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
        notify=_notify,
    )
    if compare_telemetry:
        return _print_comparison(_run_interruptible(drill.compare(pairs)), as_json=as_json)
    return _print_verdict(drill, _run_interruptible(drill.run()), report=report, as_json=as_json)


def _run_interruptible(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end. A stop signal cancels the work, which undoes the faults, and raises KeyboardInterrupt."""
    from service.event_loop import run

    async def interruptible() -> Any:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            # Only once: a second cancellation would interrupt the undoing.
            if not task.cancelling():
                _notify("Undoing the faults.")
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        return await task

    try:
        return run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _print_verdict(
    drill: "Drill", done: "tuple[list[Stage], list[tuple[Fault, str]]]", *, report: Path | None, as_json: bool
) -> int:
    import orjson

    from ops.drill import drill_text, verdict
    from ops.pages import drill_page, page

    stages, skipped = done
    cores = len(os.sched_getaffinity(0))
    concluded = verdict.conclude(stages, cores, skipped)
    about = _about(drill, cores)
    if report is not None:
        page.write(report, drill_page.render(concluded, stages, {"title": "Recollect: the failure drill", **about}))
        _notify(f"The page is {report}.")
    if as_json:
        print(orjson.dumps(verdict.as_json(concluded, stages, about), option=orjson.OPT_INDENT_2).decode())
    elif sys.stdout.isatty():
        console().print(drill_text.as_table(concluded))
    else:
        print("\n".join(drill_text.as_lines(concluded)))
    if not as_json:
        _notify(f"To repeat it: {about['command']}")
    return 0 if concluded.ok else 1


def _print_comparison(comparison: "FrozenRedisComparison", *, as_json: bool) -> int:
    import orjson

    if as_json:
        print(orjson.dumps(comparison.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        print(comparison.as_lines()[-1])
    return 0 if comparison.ok else 1


def _about(drill: "Drill", cores: int) -> dict[str, Any]:
    """Return how the drill was run, and the command that repeats it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        recollect = version("recollect")
    except PackageNotFoundError:
        recollect = "unknown"
    spec = drill.spec
    options = ["recollect", "chaos", "--faults", ",".join(fault.name for fault in drill.faults)]
    options += ["--rate", f"{spec.rate_rps:g}", "--duration", f"{spec.duration_s:g}", "--seed", str(spec.seed)]
    options += [] if spec.every_s is None else ["--every", f"{spec.every_s:g}"]
    if not drill.running:
        options += ["--data", drill.data, "--replicas", str(drill.replicas)]
    else:
        options += ["--home", str(drill.config.home), "--yes"]
    return {
        "seed": spec.seed,
        "rate_rps": spec.rate_rps,
        "duration_s": spec.duration_s,
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


def _notify(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)

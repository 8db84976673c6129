"""`recollect health`: whether the process of this container, or the installation of this machine, answers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from loadbalancer.settings import BalancerSettings
from loadbalancer.topology import address, reachable
from ops.commands.consume import ADMIN_PORT
from service.config import Config, from_env
from service.declared_settings import read
from service.errors import RunError

_TIMEOUT_S: Final = 3.0
_PID_1: Final = Path("/proc/1/cmdline")


class Question(NamedTuple):
    """Which process is asked."""

    name: str
    host: str
    port: int
    is_tls: bool = False


def command(
    *,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it can serve now, and not only whether it lives.")
    ] = False,
) -> int:
    """Ask the process of this container, or the installation of this machine, whether it lives (exit 0 or 1).

    For health checks and probes. In a container, PID 1 is asked: serve and consume on their admin port, up and balance
    on the port of clients; any other command counts as healthy while it runs. Elsewhere, the installation is asked.
    """
    question = question_for(command_of(_PID_1), os.environ, from_env(os.environ))
    if question is None:
        return 0
    path = "/readyz" if ready else "/healthz"
    status, text = _answer(question, path)
    if status != 200:
        raise RunError(f"{question.name} answers {path} with {status}: {text.strip()}.")
    return 0


def command_of(cmdline: Path) -> list[str]:
    """Return the verb and its arguments of the process with this command line, if it is ours; else nothing."""
    try:
        words = cmdline.read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []
    for number, word in enumerate(words):
        if Path(word).name == "recollect" or (word == "ops" and words[number - 1] == "-m"):
            return words[number + 1 :]
    return []


def question_for(argv: Sequence[str], environ: Mapping[str, str], config: Config) -> Question | None:
    """Return whom to ask.

    Args:
        argv: The verb of PID 1 and its arguments; empty if PID 1 is another program.
        environ: The settings.
        config: The same, read.

    Returns:
        None if the command has no port.
    """
    verb = argv[0] if argv else "up"
    if verb in {"serve", "consume"}:
        default = config.server.admin_port if verb == "serve" else ADMIN_PORT
        port = _option(argv, "--admin-port", default)
        return Question(f"recollect {verb}", reachable(config.server.admin_host), port)
    if verb in {"up", "balance"}:
        settings = read(BalancerSettings, environ)
        port = _option(argv, "--port", settings.port)
        return Question("The installation", reachable(settings.host), port, settings.tls_cert is not None)
    return None


def _option(argv: Sequence[str], name: str, default: int) -> int:
    """Return the value of an option, given as two words or as one with an equals sign."""
    for number, word in enumerate(argv):
        key, separator, value = word.partition("=")
        if key == name:
            text = value if separator else "".join(argv[number + 1 : number + 2])
            return int(text) if text.isdecimal() else default
    return default


def _answer(question: Question, path: str) -> tuple[int, str]:
    import http.client
    import ssl

    where = address(question.host, question.port)
    if question.is_tls:
        # The certificate names the hosts that clients ask for, which loopback is not.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            question.host, question.port, timeout=_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(question.host, question.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise RunError(f"{question.name} does not answer at {where}: {str(error) or type(error).__name__}.") from error
    finally:
        connection.close()

"""Attempts, pauses and deadline of the JavaScript and Java clients in docs/examples, against a server with a script."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.service.client.scripted_server import CLOSE, SILENCE, ScriptedServer, answer

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
# Each calls one route of each server that its arguments name, with a deadline, and prints what comes of it.
JAVASCRIPT = """
import { Client } from "./client.mjs";

for (let i = 2; i < process.argv.length; i += 2) {
  const client = new Client(process.argv[i], { deadlineMs: Number(process.argv[i + 1]) });
  const line = await client.call("POST", "/v1/events", { events: [] }).then(
    (answer) => `answer ${answer.accepted}`,
    (error) => `${error.constructor.name}: ${error.message}`,
  );
  console.log(line);
}
"""
JAVA = """
final class Calls {
    public static void main(String[] arguments) throws InterruptedException {
        for (int i = 0; i < arguments.length; i += 2) {
            Client client = new Client(arguments[i], null, Duration.ofMillis(Long.parseLong(arguments[i + 1])));
            try {
                Map<String, Object> answer = client.call("POST", "/v1/events", Map.of("events", List.of()));
                System.out.println("answer " + answer.get("accepted"));
            } catch (IOException error) {
                System.out.println(error.getClass().getSimpleName() + ": " + error.getMessage());
            }
        }
    }
}

"""


class Case(NamedTuple):
    """A server that does the same with each request, and what a call there comes to.

    Attributes:
        script: What it does, as `ScriptedServer` has it.
        n_requests: How many requests it gets.
        printed: A pattern of what is printed.
        deadline_ms: The milliseconds for the call.
        pause_s: The least seconds between two requests.
    """

    script: list[str]
    n_requests: int
    printed: str
    deadline_ms: int = 3000
    pause_s: float = 0.0


def failing(status: int, headers: str = "") -> list[str]:
    return [answer(status, '{"detail": "It is not well."}', headers)] * 9


ACCEPTED = answer(202, '{"accepted": 0}')
CASES = [
    *(Case(failing(status), 2, "Refused: .*It is not well.") for status in (502, 503, 504)),
    *(Case(failing(status), 1, "Refused: .*It is not well.") for status in (400, 404, 429, 500)),
    Case([CLOSE] * 9, 2, r"(Unanswered|IOException): POST /v1/events was not answered \(.+\)\."),
    Case([SILENCE] * 9, 1, r"(Unanswered|HttpTimeoutException): POST /v1/events was not answered within 300 ms\.", 300),
    # The time that the service asks for is longer than the deadline, so the answer is final, and at once.
    Case(failing(503, "Retry-After: 60\r\n"), 1, "Refused: .*It is not well."),
    Case(failing(503, "Retry-After: soon\r\n"), 2, "Refused: .*It is not well."),
    Case(failing(502, "Retry-After: 60\r\n"), 2, "Refused: .*It is not well."),
    Case([failing(503)[0], ACCEPTED], 2, "answer 0"),
    Case([CLOSE, ACCEPTED], 2, "answer 0"),
    Case([*failing(503, "Retry-After: 1\r\n")[:1], ACCEPTED], 2, "answer 0", pause_s=1.0),
    # Not every answer is the service's: a proxy has a page of its own.
    *(
        Case([answer(500, body)], 1, r"Refused: Status 500\.")
        for body in ("{}", "null", "[]", '{"detail": ["No."]}', "<p>Sorry.</p>", "")
    ),
]


def javascript(folder: Path) -> list[str]:
    shutil.copy(EXAMPLES / "client.mjs", folder)
    (folder / "calls.mjs").write_text(JAVASCRIPT, encoding="utf-8")
    return [str(shutil.which("node")), str(folder / "calls.mjs")]


def java(folder: Path) -> list[str]:
    imports, first, classes = (EXAMPLES / "Client.java").read_text(encoding="utf-8").partition("/** The service")
    # Java runs the first class of a source file.
    (folder / "Calls.java").write_text(imports + JAVA + first + classes, encoding="utf-8")
    return [str(shutil.which("java")), str(folder / "Calls.java")]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(javascript, marks=pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not on PATH")),
        pytest.param(java, marks=pytest.mark.skipif(not shutil.which("java"), reason="Java is not on PATH")),
    ],
)
def test_a_call_is_tried_at_most_twice(program: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """With the same body and key, only after what another attempt may mend, and within the deadline."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer(list(case.script))) for case in CASES]
        arguments = [
            text for case, server in zip(CASES, servers, strict=True) for text in (server.url, str(case.deadline_ms))
        ]
        done = subprocess.run([*program(tmp_path), *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for case, server, line in zip(CASES, servers, done.stdout.splitlines(), strict=True):
            assert re.fullmatch(case.printed, line), (case, line)
            assert len(server.requests) == case.n_requests, case
            assert server.received_s[-1] - server.received_s[0] >= case.pause_s, case
            keys = {re.findall(r"(?i)^idempotency-key: (\S+)", text, re.MULTILINE)[0] for text in server.requests}
            bodies = {text.partition("\r\n\r\n")[2] for text in server.requests}
            assert (len(keys), len(bodies)) == (1, 1)

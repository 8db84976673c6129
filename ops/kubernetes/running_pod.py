"""A pod of a drill: its container, its probes, and its end, in the order that the kubelet has."""

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ops.containers.pod import Pod, PodSpec
from ops.kubernetes.pod_template import PodTemplate, Probe
from ops.nodes.node import Node
from service.errors import RunError

_POLL_S: Final = 0.05


class RunningPod:
    """One pod, from its start to its end.

    Args:
        name: Its name.
        template: What it runs.
        spec: The container.
        node: Where it runs; its address is that of the pod.
        output: The file that collects what it prints.
        on_change: Called, in a thread, when its readiness changes.
    """

    def __init__(
        self, name: str, template: PodTemplate, spec: PodSpec, node: Node, output: Path, on_change: Callable[[], None]
    ) -> None:
        self.name = name
        self.template = template
        self.node = node
        self.output = output
        self.is_ready = False
        self.is_ending = False
        self.restarts = 0
        self._on_change = on_change
        with output.open("ab") as file:
            self._pod = Pod(spec, node, stdout=file, stderr=file)
        self._started_s = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._probe, name=f"probes of {name}", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether its container runs."""
        return self._pod.process.poll() is None

    def execute(self, argv: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `kubectl exec` does.

        Raises:
            RunError: It does not run.
        """
        return self._pod.execute(argv, timeout_s)

    def wait_ready(self, timeout_s: float) -> float:
        """Wait until it is ready, and return the seconds since its start.

        Raises:
            RunError: It ended, or was not ready in time.
        """
        while not self.is_ready:
            if not self.is_alive:
                raise RunError(f"{self.name} ended with {self._pod.process.returncode}: {self._last_words()}")
            if time.monotonic() - self._started_s > timeout_s:
                raise RunError(f"{self.name} was not ready within {timeout_s:g} s: {self._last_words()}")
            time.sleep(_POLL_S)
        return time.monotonic() - self._started_s

    def wait(self, timeout_s: float) -> int:
        """Wait for its end, as of a job, and return its exit code.

        Raises:
            RunError: It still runs after the time.
        """
        code = self._pod.wait(timeout_s)
        self._end()
        return code

    def stop(self) -> float:
        """Delete it: after the pause SIGTERM, after the grace period SIGKILL; return the seconds until it had ended.

        Raises:
            RunError: It had to be killed, or did not end well.
        """
        began_s = time.monotonic()
        self.is_ending = True
        self._on_change()
        if self._pod.process.poll() is None:
            time.sleep(self.template.pause_s)
            self._pod.terminate()
        left_s = self.template.grace_s - (time.monotonic() - began_s)
        try:
            code = self._pod.wait(left_s)
        except RunError:
            self.kill()
            raise RunError(f"{self.name} did not end within its grace period of {self.template.grace_s:g} s.") from None
        self._end()
        if code != 0:
            raise RunError(f"{self.name} ended with {code} after SIGTERM: {self._last_words()}")
        return time.monotonic() - began_s

    def kill(self) -> None:
        """Kill it at once, as a forced deletion does."""
        self.is_ending = True
        self._pod.kill()
        self._end()

    def lose(self) -> None:
        """Cut the power of its node: nothing says goodbye."""
        self.is_ending = True
        self.node.kill()
        self._end()

    def _end(self) -> None:
        self.is_ready = False
        self._ended.set()
        self._on_change()

    def _last_words(self) -> str:
        text = self.output.read_text(errors="replace").strip().splitlines()
        return text[-1] if text else "it printed nothing."

    def _probe(self) -> None:
        """Ask as the kubelet does: the start first, then readiness and life, each in its period."""
        template = self.template
        if template.startup is not None and not self._wait_for(template.startup):
            return
        failed = dict.fromkeys(("readiness", "liveness"), 0)
        due_s = dict.fromkeys(failed, time.monotonic())
        while not self._ended.wait(_POLL_S):
            for kind, probe in (("readiness", template.readiness), ("liveness", template.liveness)):
                if probe is None or time.monotonic() < due_s[kind]:
                    continue
                due_s[kind] = time.monotonic() + probe.period_s
                answered = self._ask(probe)
                failed[kind] = 0 if answered else failed[kind] + 1
                if kind == "readiness" and (answered or failed[kind] >= probe.failures) and answered != self.is_ready:
                    self.is_ready = answered and not self._ended.is_set()
                    self._on_change()
                if kind == "liveness" and failed[kind] >= probe.failures and not self.is_ending:
                    # The drill hangs nothing, so a restart is a finding.
                    self.restarts += 1
                    failed[kind] = 0

    def _wait_for(self, probe: Probe) -> bool:
        for _ in range(probe.failures):
            if self._ask(probe):
                return True
            if self._ended.wait(probe.period_s):
                return False
        return False

    def _ask(self, probe: Probe) -> bool:
        if probe.port is None:
            try:
                return self._pod.execute(probe.command, probe.timeout_s).returncode == 0
            except (RunError, OSError, subprocess.TimeoutExpired):
                return False
        try:
            if probe.path is None:
                socket.create_connection((self.node.address, probe.port), timeout=probe.timeout_s).close()
                return True
            connection = http.client.HTTPConnection(self.node.address, probe.port, timeout=probe.timeout_s)
            try:
                connection.request("GET", probe.path)
                return 200 <= connection.getresponse().status < 400
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False

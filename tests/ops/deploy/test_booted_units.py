"""systemd itself installs, starts, restarts and stops the units, with all that they forbid."""

import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.support.machines.booted_machine import BootedMachine, require_booted_machine

UNITS = Path(__file__).resolve().parents[3] / "ops" / "deploy" / "systemd"
# The rest of the machine's units is not started, and output is read from a file.
DROP_IN = (
    "[Unit]\nDefaultDependencies=no\n[Service]\nStandardOutput=append:/run/printed\nStandardError=append:/run/printed\n"
)


def list_of(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/recommend/1", timeout=2) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return ""


def test_the_units_run_under_systemd(free_port: Callable[[], int], wait_until: Callable[..., None]) -> None:
    """install.sh, a nightly training, the service, an end by SIGKILL, and a stop in order."""
    require_booted_machine()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="recollect-machine-") as folder, BootedMachine(Path(folder)) as machine:
        # The dependencies of the lock are those of the tests.
        machine.write("/usr/local/bin/make", "#!/bin/sh\n")
        machine.run("chmod", "755", "/usr/local/bin/make")
        # The disk of a machine whose user had another id, with files of a third machine in it.
        other = (
            "umask 077; mkdir -p $0/archive $0/shared; chown 700:700 $0 $0/archive; mount -t tmpfs -o ro none $0/shared"
        )
        assert machine.run("sh", "-ec", other, "/var/lib/recollect").returncode == 0
        done = machine.run("sh", "/opt/recollect/ops/deploy/systemd/install.sh", "/opt/recollect")
        assert (done.returncode, done.stderr) == (0, "")
        owners = machine.run("sh", "-c", "cd /var/lib/recollect && stat -c %U . archive shared").stdout
        assert owners.split() == ["recollect", "recollect", "root"]
        assert machine.run("umount", "/var/lib/recollect/shared").returncode == 0
        for unit in ("recollect.service", "recollect-nightly.service"):
            machine.write(f"/etc/systemd/system/{unit}.d/trial.conf", DROP_IN)
        settings = machine.run("cat", "/etc/recollect/recollect.toml").stdout
        machine.write("/etc/recollect/recollect.toml", f"{settings}\nport = {port}\nreplicas = 1\n")
        machine.write("/etc/recollect/nightly.env", "TRAINING=--data demo:60x40x900 --algorithm popularity --force\n")
        machine.run("systemctl", "daemon-reload")

        done = machine.run("systemctl", "start", "recollect-nightly.service")
        printed = machine.run("cat", "/run/printed").stdout
        assert done.returncode == 0, done.stderr + printed
        assert "It is active" in printed

        assert machine.run("systemctl", "start", "recollect.service").returncode == 0
        wait_until(lambda: list_of(port), what=f"a list: {machine.run('cat', '/run/printed').stdout}", timeout_s=60)
        main = machine.property("recollect.service", "MainPID")
        status = dict(re.findall(r"^(\w+):\s+(\S+)", machine.run("cat", f"/proc/{main}/status").stdout, re.MULTILINE))
        assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0)
        assert status["Uid"] != "0"
        assert machine.run("stat", "-c", "%U %a", "/var/lib/recollect/archive").stdout == "recollect 700\n"

        # Whatever kills it, it is there again, and ends what was left.
        machine.run("kill", "-KILL", main)
        wait_until(lambda: machine.property("recollect.service", "NRestarts") == "1", what="the restart")
        wait_until(lambda: list_of(port), what="a list after the restart", timeout_s=60)

        began_s = time.monotonic()
        assert machine.run("systemctl", "stop", "recollect.service").returncode == 0
        assert time.monotonic() - began_s < 90
        assert machine.property("recollect.service", "Result") == "success"
        assert machine.run("cat", "/run/printed").stdout.endswith("Stopped.\n")
        assert list_of(port) == ""

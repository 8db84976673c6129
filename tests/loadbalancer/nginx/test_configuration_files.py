"""What an nginx supports is found by asking it, and what it rejects is said."""

from pathlib import Path

import pytest

from loadbalancer.binaries import find_nginx
from loadbalancer.errors import ConfigurationRefused
from loadbalancer.nginx import configuration_files
from loadbalancer.nginx.configuration import OPTIONAL_DIRECTIVES


def test_a_rejected_configuration_is_one_sentence(tmp_path: Path) -> None:
    """It contains nginx's reason."""
    binary = find_nginx(None).path
    argv = configuration_files.command(binary, tmp_path, tmp_path / "error.log")
    with pytest.raises(ConfigurationRefused, match='unknown directive "nonsense"'):
        configuration_files.install(argv, tmp_path, "events { } nonsense on;\n")


@pytest.mark.parametrize("unknown", [(), ("max_headers",), ("uwsgi_temp_path", "max_headers"), OPTIONAL_DIRECTIVES])
def test_directives_that_an_nginx_lacks_are_found(unknown: tuple[str, ...], tmp_path: Path) -> None:
    """With a script that lacks some directives and complains like nginx."""
    fake = tmp_path / "nginx"
    checks = "\n".join(
        f"grep -q '{name} ' \"$conf\" && echo 'nginx: [emerg] unknown directive \"{name}\" in x:1' && exit 1"
        for name in unknown
    )
    fake.write_text(f'#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -c ] && conf="$2"; shift; done\n{checks}\nexit 0\n')
    fake.chmod(0o755)
    assert configuration_files.supported_directives(fake, tmp_path) == frozenset(OPTIONAL_DIRECTIVES) - set(unknown)


def test_an_nginx_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    """It is not mistaken for one without optional directives."""
    with pytest.raises(ConfigurationRefused, match="rejects an empty configuration"):
        configuration_files.supported_directives(tmp_path / "absent", tmp_path)

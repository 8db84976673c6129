import os
from pathlib import Path

import pytest

from ops.cluster.ray_environment import driver_environment, node_environment
from ops.cluster.ray_node import NodeOptions, failure_in, running_node, start_argv
from service.errors import RunError


def test_every_process_of_ray_knows_the_token_and_one_thread() -> None:
    """A token of the environment would win over the file, and an address lead elsewhere."""
    token = Path("/srv/token")
    given = {"PATH": "/bin", "RAY_AUTH_TOKEN": "other", "RAY_ADDRESS": "elsewhere:1", "OMP_NUM_THREADS": "8"}
    environ = node_environment(given, token, "eth1")
    assert driver_environment(token).items() <= environ.items()
    assert environ["RAY_AUTH_MODE"] == "token"
    assert environ["RAY_AUTH_TOKEN_PATH"] == "/srv/token"
    assert environ["GLOO_SOCKET_IFNAME"] == "eth1"
    assert environ["OMP_NUM_THREADS"] == "1"
    assert environ["PATH"] == "/bin"
    assert not {"RAY_AUTH_TOKEN", "RAY_ADDRESS"} & environ.keys()


def test_only_the_head_has_a_port_and_the_others_its_address() -> None:
    head = start_argv(NodeOptions("10.0.0.1", None, 7379, 4, None), Path("/tmp/x"), Path("/srv/values"))
    other = start_argv(NodeOptions("10.0.0.2", "10.0.0.1:7379", 0, 0, 100_000_000), Path("/tmp/x"), Path("/srv/values"))
    assert {"--head", "--port=7379", "--include-dashboard=false", "--num-cpus=4"} <= set(head)
    assert {"--address=10.0.0.1:7379", "--num-cpus=0", "--object-store-memory=100000000"} <= set(other)
    assert "--head" not in other
    # Values that memory does not hold would fill the folder of the sockets.
    for argv in (head, other):
        assert {"--temp-dir=/tmp/x", "--object-spilling-directory=/srv/values"} <= set(argv)
    assert not [word for word in head if word.startswith("--object-store")]


def test_no_values_are_left_by_a_start_that_fails_nor_by_one_before_it(tmp_path: Path) -> None:
    """Not even of a part that was killed: they are of users."""
    values = tmp_path / "run/values"
    (values / "ray_spilled_objects_1").mkdir(parents=True)
    (values / "ray_spilled_objects_1/1").write_bytes(b"rows")
    # Without Ray it fails, too.
    options = NodeOptions("127.0.0.1", "no address", 0, 0, None)
    with (
        pytest.raises(RunError, match=r"^Ray could not be started on this machine"),
        running_node(options, os.environ, tmp_path / "ray.log", values),
    ):
        pytest.fail("It started.")
    assert not values.exists()


def test_a_folder_for_values_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"file/values cannot be made: Not a directory\.$"),
        running_node(
            NodeOptions("127.0.0.1", None, 1, 0, None), os.environ, tmp_path / "log", tmp_path / "file/values"
        ),
    ):
        pytest.fail("It started.")


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ray.exceptions.AuthenticationError: InvalidAuthToken", "The head refuses the token of this machine"),
        ("RuntimeError: Version mismatch: Ray 2.58.0", "The head runs another version of Ray or Python: RuntimeError"),
        ("a\nOSError: no space left\nb", "Ray could not be started on this machine: OSError: no space left"),
        ("", "Ray could not be started on this machine: it printed nothing"),
    ],
)
def test_a_start_that_fails_is_explained_in_one_sentence(output: str, sentence: str) -> None:
    assert failure_in(output).startswith(sentence)

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from loadbalancer.nginx import configuration_files
from loadbalancer.nginx.remote_watch import RemoteWatch, resolved
from loadbalancer.topology import RemoteReplica

NAME = RemoteReplica("replicas.example", 8081)
ADDRESS = RemoteReplica("192.0.2.7", 8081)


def at(*last_bytes: int) -> frozenset[RemoteReplica]:
    return frozenset(RemoteReplica(f"10.0.0.{last}", 8081) for last in last_bytes)


class World:
    """A name service, an nginx, and what the watch did with them."""

    def __init__(self, answer: frozenset[RemoteReplica] | None) -> None:
        self.answer = answer
        self.rejection: str | None = None
        self.installed: list[tuple[RemoteReplica, ...]] = []
        self.reloads = 0
        self.sentences: list[str] = []
        self.resolutions = 0

    def resolve(self, remote: RemoteReplica) -> frozenset[RemoteReplica] | None:
        self.resolutions += 1
        return frozenset({remote}) if remote == ADDRESS else self.answer

    def install(self, replicas: tuple[RemoteReplica, ...]) -> str | None:
        self.installed.append(replicas)
        return self.rejection

    def reload(self) -> None:
        self.reloads += 1

    def watch(self) -> RemoteWatch:
        return RemoteWatch([NAME, ADDRESS], 0.001, self.install, self.resolve)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[RemoteWatch]:
        watch = self.watch()
        task = asyncio.create_task(watch.run(self.reload, self.sentences.append))
        yield watch
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_name_that_changes_reloads_nginx_once(await_until: Callable[..., object]) -> None:
    world = World(at(2, 1))
    async with world.watched() as watch:
        assert watch.replicas == (*sorted(at(1, 2)), ADDRESS)
        world.answer = at(2, 3)
        await await_until(lambda: world.reloads)  # type: ignore[misc]
        seen = world.resolutions
        await await_until(lambda: world.resolutions > seen + 3)  # type: ignore[misc]
    assert world.installed == [(*sorted(at(2, 3)), ADDRESS)]
    assert world.reloads == 1
    assert world.sentences == [
        "nginx now sends to 3 replicas of other machines: 10.0.0.2:8081, 10.0.0.3:8081, 192.0.2.7:8081."
    ]


async def test_a_name_service_that_is_away_changes_nothing(await_until: Callable[..., object]) -> None:
    """It is reported once; at the next answer the addresses are replaced."""
    world = World(at(1))
    async with world.watched() as watch:
        world.answer = None
        await await_until(lambda: world.sentences)  # type: ignore[misc]
        seen = world.resolutions
        await await_until(lambda: world.resolutions > seen + 3)  # type: ignore[misc]
        assert watch.replicas == (*at(1), ADDRESS)
        assert len(world.sentences) == 1
        assert "replicas.example of RECOLLECT_REMOTE_REPLICAS cannot be resolved now" in world.sentences[0]
        world.answer = at(4)
        await await_until(lambda: world.reloads)  # type: ignore[misc]
    assert world.installed == [(*at(4), ADDRESS)]


async def test_what_nginx_rejects_is_tried_again(await_until: Callable[..., object]) -> None:
    """Nothing is reloaded until nginx accepts the file."""
    world = World(at(1))
    world.rejection = "too many servers"
    async with world.watched():
        world.answer = at(5)
        await await_until(lambda: len(world.installed) > 2)  # type: ignore[misc]
        assert world.reloads == 0
        world.rejection = None
        await await_until(lambda: world.reloads)  # type: ignore[misc]
    rejected, accepted = world.sentences
    assert "nginx rejects the new addresses of replicas: too many servers. The old ones stay in use" in rejected
    assert accepted.startswith("nginx now sends to 2 replicas")


async def test_what_cannot_be_written_is_tried_again(tmp_path: Path, await_until: Callable[..., object]) -> None:
    """A full disk, and here a folder that is away, ends the watch as little as a rejection does."""
    world = World(at(1))
    run_dir = tmp_path / "nginx-0"
    accepts_all = ("/bin/true", "-c", str(run_dir / "nginx.conf"))
    tried = 0

    def install(replicas: tuple[RemoteReplica, ...]) -> str | None:
        nonlocal tried
        tried += 1
        return configuration_files.replace(accepts_all, run_dir, str(replicas))

    world.install = install  # type: ignore[method-assign]
    async with world.watched():
        world.answer = at(6)
        await await_until(lambda: tried > 2)  # type: ignore[misc]
        assert world.reloads == 0
        run_dir.mkdir()
        await await_until(lambda: world.reloads)  # type: ignore[misc]
    failed, installed = world.sentences
    assert "cannot be written for nginx: No such file or directory. The old ones stay in use" in failed
    assert installed.startswith("nginx now sends to 2 replicas")
    assert (run_dir / "nginx.conf").read_text() == str((*at(6), ADDRESS))
    assert [path.name for path in run_dir.iterdir()] == ["nginx.conf"]


async def test_old_addresses_are_written_again_after_a_failure(await_until: Callable[..., object]) -> None:
    """The first nginx may have got the new addresses before the second one could not."""
    world = World(at(1))
    world.rejection = "too many servers"
    async with world.watched():
        world.answer = at(5)
        await await_until(lambda: world.installed)  # type: ignore[misc]
        world.answer, world.rejection = at(1), None
        await await_until(lambda: world.reloads)  # type: ignore[misc]
    assert world.installed[-1] == (*at(1), ADDRESS)


async def test_a_name_that_never_had_an_address_is_reported_as_such(await_until: Callable[..., object]) -> None:
    world = World(None)
    async with world.watched():
        await await_until(lambda: world.sentences)  # type: ignore[misc]
    assert world.sentences == [
        "replicas.example of RECOLLECT_REMOTE_REPLICAS cannot be resolved now; nginx sends it no requests."
    ]


async def test_addresses_alone_are_not_resolved_again() -> None:
    world = World(None)
    watch = RemoteWatch([ADDRESS], 0.001, world.install, world.resolve)
    await watch.run(world.reload, world.sentences.append)
    assert world.resolutions == 1


def test_the_system_resolves_names_and_addresses() -> None:
    assert RemoteReplica("127.0.0.1", 8081) in (resolved(RemoteReplica("localhost", 8081)) or ())
    assert resolved(RemoteReplica("::1", 8081)) == frozenset({RemoteReplica("::1", 8081)})
    assert resolved(RemoteReplica("no-such-name.invalid", 8081)) is None

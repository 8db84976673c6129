"""The lists of many users from the files of an installation: what `recollect generate` does.

Invariant: all lists of a folder are made from one version, one live state and one time, which are fixed before the
first shard; a generation that was killed goes on with them.
"""

import itertools
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ops.offline.frozen_state import freeze, live_user_ids, thaw
from ops.offline.offline_model import OfflineModel, active_version
from service.config import Config
from service.errors import FilterRefused, ModelMissing, RunError, UsageError
from service.generation.bulk_users import BulkUsers, default_shard_users, read_ids
from service.generation.erasure.erased_places import ErasedPlaces
from service.generation.files.output_folder import OutputFolder, digest_of
from service.generation.files.shard_format import Layout
from service.generation.generation import Progress, generate
from service.generation.lists.list_model import BulkModel
from service.generation.shard_source import ShardSource, live_events
from service.lists.filters.masks import FilterMasks
from service.lists.filters.parsing import parse
from service.lists.list_request import ListRequest
from service.models.files import artefact, versions
from service.models.files.erased_users import ErasedAt, ErasedUsers
from telemetry.errors import ArchiveError, StateError
from telemetry.ids import rfc3339_ms

_OTHERS: Final = "others.txt"
_MS_PER_S: Final = 1000
Outcome = Literal["new", "continued", "complete"]


@dataclass(frozen=True)
class GenerationRequest:
    """What is asked for.

    Attributes:
        n: The length of a list.
        filter: What the items' attributes must be; None for any.
        model: The version; None for the active one, or of a folder that was begun, for the one that it has.
        user_ids: The users; None for all.
        users_sha256: That of the file that names them; None for all.
        shard_users: How many users a file has; None to choose by the numbers of users and items.
        layout: Of the files.
        live: Whether users are computed with the live state, and users whom the model does not know get lists, too.
    """

    n: int
    filter: str | None = None
    model: str | None = None
    user_ids: list[str] | None = None
    users_sha256: str | None = None
    shard_users: int | None = None
    layout: Layout = "rows"
    live: bool = False

    def inputs(self, config: Config) -> dict[str, Any]:
        """Return what decides about the lists besides version, state and time, as plain JSON."""
        return {
            "n": self.n,
            "filter": self.filter,
            "users": self.users_sha256,
            "layout": self.layout,
            "live": self.live,
            "seen_types": sorted(config.live_lists.seen) if self.live else None,
            "impression_factor": config.live_lists.impression_factor if self.live else None,
        }

    def difference(self, config: Config, begun: Mapping[str, Any]) -> str | None:
        """Return in which way a folder's generation is another one; None if it is this one."""
        asked: dict[str, Any] = self.inputs(config)
        asked |= {} if self.model is None else {"model": self.model}
        asked |= {} if self.shard_users is None else {"shard_users": self.shard_users}
        found = begun["inputs"]
        for name, value in asked.items():
            if found.get(name) != value:
                return f"its {name} is {found.get(name)!r}, not {value!r}"
        return None


@dataclass(frozen=True)
class Generated:
    """A complete folder.

    Attributes:
        path: The folder.
        manifest: Its manifest.
        outcome: Whether it was made from the beginning, continued, or complete before.
    """

    path: Path
    manifest: dict[str, Any]
    outcome: Outcome


def requested_ids(path: Path | None) -> tuple[list[str] | None, str | None]:
    """Return the users that a file names, `-` for standard input, and the sha256 of its content; None for no file.

    Raises:
        UsageError: The file cannot be read, or a line is no id.
    """
    if path is None:
        return None, None
    import hashlib

    try:
        content = sys.stdin.buffer.read() if path == Path("-") else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    return read_ids(content.splitlines(), str(path)), hashlib.sha256(content).hexdigest()


def run(config: Config, request: GenerationRequest, output: Path | None, progress: Progress) -> Generated:
    """Make the lists, or what is missing of them.

    Args:
        config: The installation.
        request: What is asked for.
        output: The folder; None for one in `config.generated_dir`: that of the last generation of the same request by
            the same model that was not completed, or a new one.
        progress: Called with the stage, the finished shards and all of them.

    Raises:
        UsageError: The filter is wrong, or the folder holds something else.
        ModelMissing: There is no such version, or none is active.
        RunError: A file cannot be read or written, or a worker failed.
    """
    if request.filter is not None:
        try:
            parse(request.filter)
        except FilterRefused as refused:
            raise UsageError(f"--filter: {refused.reason}.") from None
    path = _unfinished(config, request) or _new_path(config, request) if output is None else output
    with OutputFolder.held(path) as folder:
        manifest = folder.manifest()
        if manifest is not None:
            _require_same(config, request, path, manifest, model=request.model or active_version(config))
            return Generated(path, manifest, "complete")
        begun = folder.begun()
        if begun is not None:
            _require_same(config, request, path, begun, model=request.model)
            if not _is_published(config, begun["inputs"]["model"]):
                print(f"The model {begun['inputs']['model']} is gone: {path} is begun anew.", file=sys.stderr)
                folder.clear()
                begun = None
        outcome: Outcome = "new" if begun is None else "continued"
        if begun is not None:
            begun_at = rfc3339_ms(begun["as_of_ms"] / _MS_PER_S)
            print(f"Going on with {path}, of {begun_at} by {begun['inputs']['model']}.", file=sys.stderr)
        if begun is None:
            _freeze(config, folder)
        try:
            generation = _Generation(config, request, folder, begun)
            facts = begun or folder.begin(generation.facts)
        except BaseException:
            if begun is None:
                folder.discard()
            raise
        while True:
            generate(folder, generation.source, request.layout, generation.erased, progress)
            # An erase lists its users before it searches complete folders: it sees the manifest, or the list is new.
            with folder.completing():
                if generation.left_out_all():
                    return Generated(path, folder.finish(generation.manifest(facts)), outcome)


class _Generation:
    """The model, the users and the live state of a folder."""

    def __init__(
        self, config: Config, request: GenerationRequest, folder: OutputFolder, begun: Mapping[str, Any] | None
    ) -> None:
        self._config = config
        self._request = request
        inputs: Mapping[str, Any] = {} if begun is None else begun["inputs"]
        version = inputs.get("model") or request.model or active_version(config)
        try:
            stored = thaw(folder.frozen)
            self._frozen = stored[0]
            if request.live and self._frozen.stamp is None:
                raise RunError(f"There is no live state in {config.state_dir}: leave out --live, or run a consumer.")
            self.model = OfflineModel(config, version, stored)
        except (StateError, ArchiveError, OSError) as error:
            raise RunError(f"The live state cannot be read: {error}") from error
        snapshot, catalogue = self.model.snapshot, self.model.catalogue
        as_of_ms = int(time.time() * _MS_PER_S) if begun is None else begun["as_of_ms"]
        try:
            item_filter = None if request.filter is None else FilterMasks().of(request.filter, catalogue)
        except FilterRefused as refused:
            raise UsageError(f"--filter: {refused.reason}.") from None
        hidden = catalogue.unavailable_rows(as_of_ms / _MS_PER_S)
        factor = config.live_lists.impression_factor if request.live else None
        bulk = BulkModel(
            snapshot,
            ListRequest(request.n, filter=request.filter, impression_factor=factor),
            hidden,
            item_filter,
            config.live_lists.seen,
        )
        users = self._users(folder)
        shard_users = inputs.get("shard_users") or request.shard_users or default_shard_users(len(users), request.n)
        state = self.model.state if request.live else None
        self.source = ShardSource(bulk, users, shard_users, state, self.model.pseudonyms)
        self._listed = ErasedUsers(b"", {})
        self._erased_places = ErasedPlaces(users.ids, self.model.pseudonyms)
        self._left_out = np.zeros(len(users), bool)
        manifest_sha256 = digest_of(versions.directory_of(config.models_dir, version) / artefact.MANIFEST)
        self.facts: dict[str, Any] = {
            "inputs": {
                "model": version,
                "model_sha256": manifest_sha256,
                **request.inputs(config),
                "shard_users": shard_users,
            },
            "as_of_ms": as_of_ms,
        }

    def manifest(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the manifest without the shards."""
        source, snapshot = self.source, self.model.model
        shards = source.users
        return {
            "inputs": facts["inputs"],
            "as_of": rfc3339_ms(facts["as_of_ms"] / _MS_PER_S),
            "completed": rfc3339_ms(time.time()),
            "algorithm": snapshot.algorithm,
            "data": snapshot.manifest.get("data"),
            "data_as_of": snapshot.data_as_of,
            "catalogue_watermark": self.model.catalogue.watermark or None,
            "state_marks": self._marks() if self._request.live else None,
            "exact": True,
            "users": len(shards) - int(source.left_out.sum()),
            "users_unknown": int(np.count_nonzero((shards.rows < 0) & ~source.left_out)),
            "users_erased": int(source.left_out.sum()),
            "code_version": artefact.code_version(),
        }

    def erased(self) -> NDArray[np.bool_]:
        """Return the users who were erased and have done nothing since, bool (n_users,); none of them comes back."""
        self._leave_out_listed()
        return self._left_out

    def left_out_all(self) -> bool:
        """Whether none of these users was erased since `erased` was called last."""
        return not self._leave_out_listed()

    def _leave_out_listed(self) -> bool:
        """Leave out whom the list of erased users has since it was read last; returns whether there is one."""
        before, self._listed = self._listed, ErasedUsers.read(self._config.models_dir)
        is_new = False
        for place, at in self._erased_places.of(self._listed.since(before)).items():
            if not self._left_out[place] and not self._came_back(place, at):
                self._left_out[place] = is_new = True
        return is_new

    def _came_back(self, place: int, at: ErasedAt) -> bool:
        """Whether an erased user did something since the request, and the list is made of nothing from before."""
        users, state = self.source.users, self.model.state
        row = int(users.rows[place])
        if row >= 0 and not self._was_trained_since(row, at):
            return False
        if not self._request.live:
            return row >= 0
        # The state is of the beginning: it may have what was erased.
        events = live_events(state, users.ids[place], self.model.pseudonyms)
        return (row >= 0 or bool(events)) and all(event.received_ms > at.requested_ms for event in events)

    def _was_trained_since(self, row: int, at: ErasedAt) -> bool:
        """Whether the row of a user in the model is of later interactions alone."""
        snapshot = self.model.snapshot
        if at.is_before(snapshot.manifest.get("created")):
            return True
        times_s = snapshot.user_history(row).times_s
        return times_s is not None and int(times_s.max(initial=0)) > at.listed_s

    def _users(self, folder: OutputFolder) -> BulkUsers:
        if self._request.user_ids is not None:
            return BulkUsers.named(self.model.snapshot, self._request.user_ids, self.model.pseudonyms)
        if not self._request.live:
            return BulkUsers.of_model(self.model.snapshot)
        path = folder.frozen / _OTHERS
        if not path.exists():
            content = "".join(f"{user_id}\n" for user_id in self._others())
            staged = path.with_suffix(".tmp")
            staged.write_text(content)
            staged.rename(path)
        return BulkUsers.of_model(self.model.snapshot, path.read_text().split("\n")[:-1])

    def _others(self) -> list[str]:
        """Return the users of the live state whom the model does not know, by id."""
        model, pseudonyms = self.model, self.model.pseudonyms
        known = model.snapshot.users.row_of
        of_model = {pseudonyms.pseudonym(user_id) for user_id in known} if pseudonyms.active else known
        try:
            found = live_user_ids(self._config, self._frozen)
        except (ArchiveError, OSError) as error:
            raise RunError(f"The archive cannot be read: {error}") from None
        return sorted(
            user_id
            for user_id in found
            if user_id not in known and user_id not in of_model and model.state.user(user_id) is not None
        )

    def _marks(self) -> dict[str, str]:
        return {producer: f"{mark.epoch}-{mark.seq}" for producer, mark in sorted(self.model.marks.items())}


def _freeze(config: Config, folder: OutputFolder) -> None:
    shutil.rmtree(folder.frozen, ignore_errors=True)
    try:
        freeze(config, folder.frozen)
    except (StateError, ArchiveError, OSError) as error:
        folder.discard()
        raise RunError(f"The live state cannot be copied: {error}") from error


def _require_same(
    config: Config, request: GenerationRequest, path: Path, begun: Mapping[str, Any], model: str | None
) -> None:
    reason = request.difference(config, begun)
    if reason is None and model is not None and begun["inputs"]["model"] != model:
        reason = f"its model is {begun['inputs']['model']}, not {model}"
    if reason is not None:
        raise UsageError(f"{path} holds another generation: {reason}. Name another folder with --output, or remove it.")


def _is_published(config: Config, version: str) -> bool:
    try:
        artefact.read_manifest(versions.directory_of(config.models_dir, version))
    except ModelMissing:
        return False
    return True


def _unfinished(config: Config, request: GenerationRequest) -> Path | None:
    """Return the newest folder of the same request that was not completed; None if there is none."""
    model = request.model or active_version(config)
    for path in sorted(config.generated_dir.glob("*/"), reverse=True):
        with suppress(OSError, ValueError):
            begun = OutputFolder(path).peek()
            if begun is None or begun["inputs"]["model"] != model:
                continue
            if request.difference(config, begun) is None and _is_published(config, model):
                return path
    return None


def _new_path(config: Config, request: GenerationRequest) -> Path:
    """Return a folder that there is not: times in names sort as they come."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    name = f"{stamp}-{request.model or active_version(config)}"
    paths = (config.generated_dir / (f"{name}-{number}" if number else name) for number in itertools.count())
    return next(path for path in paths if not path.exists())

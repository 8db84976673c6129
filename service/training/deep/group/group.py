"""A training group: the processes that train one network together, and what they exchange.

Invariant: after each exchange all members have the same bits. Sums add in an order that depends on the size of the
group alone, so that a group of the same size computes the same again.

Members reach each other by gloo, the part of PyTorch for tensors of processors. Each listens at the address by which it
reaches the first one, whatever its host name resolves to.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final

import torch
from torch import distributed

from service.errors import GroupBroken
from service.executors.member import Member
from service.training.deep.group.share import Share

# How long an exchange waits for a busy member, such as the first one in a validation. The executor finds dead members.
_PATIENCE: Final = timedelta(hours=6)
_JOIN_PATIENCE: Final = timedelta(minutes=5)


class Group:
    """The group of this process, once all members have joined it.

    Args:
        member: The place of this process, and where the first member listens.

    Raises:
        GroupBroken: Another member cannot be reached.
    """

    def __init__(self, member: Member) -> None:
        self.member: Final = member
        self.share: Final = Share(member.rank, member.size)
        with _lost_members():
            listener = {} if member.listener is None else {"master_listen_fd": member.listener}
            # Kept, because the store of the first member ends with it.
            self._store = distributed.TCPStore(
                member.host,
                member.port,
                member.size,
                is_master=not member.rank,
                timeout=_JOIN_PATIENCE,
                wait_for_workers=False,
                **listener,
            )
            # By an environment variable gloo takes the name of an interface alone, and by default its own host name.
            options: Any = distributed.ProcessGroupGloo._Options()  # noqa: SLF001
            options._devices = [  # noqa: SLF001
                distributed.ProcessGroupGloo.create_device(hostname=own_address(member))
            ]
            options._timeout = _PATIENCE  # noqa: SLF001
            self._gloo = distributed.ProcessGroupGloo(self._store, member.rank, member.size, options)

    @property
    def is_first(self) -> bool:
        """Whether this is the member that validates, keeps checkpoints and makes the model."""
        return not self.share.rank

    def add(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the sum of those of all members."""
        with _lost_members():
            if tensor.is_cuda:
                host = tensor.cpu()
                self._gloo.allreduce([host]).wait()
                tensor.copy_(host)
            else:
                self._gloo.allreduce([tensor]).wait()

    def of_first(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by that of the first member."""
        with _lost_members():
            if tensor.is_cuda:
                host = tensor.cpu()
                self._gloo.broadcast(host, 0).wait()
                tensor.copy_(host)
            else:
                self._gloo.broadcast(tensor, 0).wait()

    def of_each(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all members, on the processor, which have one shape."""
        own = tensor.cpu()
        found = [torch.empty_like(own) for _ in range(self.share.size)]
        with _lost_members():
            self._gloo.allgather([found], [own]).wait()
        return found

    def bytes_of_first(self, content: bytes | None) -> bytes | None:
        """Return the bytes that the first member gives, which may be none."""
        size = torch.tensor([-1 if content is None else len(content)])
        self.of_first(size)
        if int(size) < 0:
            return None
        sent = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_first and content:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if sent.numel():
            self.of_first(sent)
        found: bytes = sent.numpy().tobytes()
        return found

    def number_of_first(self, number: float) -> float:
        """Return the number that the first member gives."""
        sent = torch.tensor([number], dtype=torch.float64)
        self.of_first(sent)
        return float(sent)


_group: ContextVar[Group | None] = ContextVar("recollect_training_group", default=None)


def group_in_use() -> Group | None:
    """Return the group of this process; None if it trains alone."""
    return _group.get()


@contextmanager
def training_in(group: Group | None) -> Iterator[None]:
    """Let networks inside be trained by a group."""
    token = _group.set(group)
    try:
        yield
    finally:
        _group.reset(token)


def own_address(member: Member) -> str:
    """Return the address of this machine by which it reaches the first member."""
    family, kind, protocol, _, where = socket.getaddrinfo(member.host, member.port, type=socket.SOCK_DGRAM)[0]
    # Nothing is sent: the kernel only chooses the address.
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(where)
        return str(probe.getsockname()[0])


@contextmanager
def _lost_members() -> Iterator[None]:
    """Raise gloo's errors, which come from a member that died, as one of Recollect's."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise GroupBroken(f"A member of the training group cannot be reached: {str(error).splitlines()[0]}") from error

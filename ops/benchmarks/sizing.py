"""What a size of data costs on a cluster: hours, memory, network and money, from measured unit costs (pure).

The unit costs are processor time of one core of the machine that docs/benchmarks.md names, and bytes that were counted.
What a worker does is divided by the cores of all machines. What the process of the command does, and what passes its
network link, is not: that bounds how many machines are of use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_GIGA: Final = 1e9
_HOUR_S: Final = 3600.0
_BITS: Final = 8
# Columns of the randomised SVD beyond the factors, and its parts of so many users.
_OVERSAMPLED: Final = 16
_SVD_PARTS: Final = 64


@dataclass(frozen=True)
class UnitCosts:
    """Measured costs.

    Attributes:
        read_us: The command, of an interaction, before and after the epochs: confidences, orders, histories.
        ials_solve_us: A worker, of an interaction in a half epoch, with 64 factors and 20 interactions a user.
        ials_row_us: The command, of a row of the fixed table: Gramian and rotation, with 64 factors.
        svd_visit_us: A worker, of a rating in an epoch, with 64 factors and 20 ratings a user.
        product_ns: A worker, of an interaction and a column in a product of `pure_svd`.
        gramian_us: A worker, of a row of 80 columns: Gramian and rotation in `pure_svd`.
        list_ns: A worker, of a user and an item: product, selection and exact scores, with 64 factors.
        user_us: A worker, of a user: order, and a row group of a file.
        list_bytes: The file, of a user with a list of 100.
        task_ms: The command, of a task.
        interaction_bytes: The command's memory, of an interaction.
        most_interactions: Of a task of `ials`.
        shard_users: Of a task of a generation.
    """

    read_us: float = 0.55
    ials_solve_us: float = 0.27
    ials_row_us: float = 0.16
    svd_visit_us: float = 0.095
    product_ns: float = 0.55
    gramian_us: float = 0.57
    list_ns: float = 2.4
    user_us: float = 35.0
    list_bytes: float = 1063.0
    task_ms: float = 1.5
    interaction_bytes: float = 70.0
    most_interactions: int = 262_144
    shard_users: int = 50_000


@dataclass(frozen=True)
class DataSize:
    """A size of data, and what is computed of it, with 64 factors.

    Attributes:
        n_users: Users.
        n_items: Items.
        interactions_per_user: In the mean.
        n_factors: Of a user and an item; the unit costs are those of 64.
        ials_epochs: The epochs of `ials`.
        svd_epochs: The epochs of `svd`.
        svd_groups: The groups of `svd`, which bound its workers.
    """

    n_users: int
    n_items: int
    interactions_per_user: float = 50.0
    n_factors: int = 64
    ials_epochs: int = 10
    svd_epochs: int = 20
    svd_groups: int = 64

    @property
    def n_interactions(self) -> float:
        """All of them."""
        return self.n_users * self.interactions_per_user

    @property
    def user_table_bytes(self) -> float:
        """Float32."""
        return 4.0 * self.n_factors * self.n_users

    @property
    def item_table_bytes(self) -> float:
        """Float32."""
        return 4.0 * self.n_factors * self.n_items


@dataclass(frozen=True)
class Machines:
    """The machines of a cluster, all alike.

    Attributes:
        n_cores: Of each.
        network_gbit_s: The link of each.
        core_hour_eur: The price of a core for an hour, with its share of memory.
    """

    n_cores: int = 32
    network_gbit_s: float = 10.0
    core_hour_eur: float = 0.05


@dataclass(frozen=True)
class Need:
    """What a work needs.

    Attributes:
        name: The work.
        worker_s: Seconds of a core in workers, divided between them.
        command_s: Seconds of a core in the command, one after the other.
        threads_s: Seconds of a core in the command that its threads divide.
        to_each_bytes: From the command's machine to each machine.
        moved_bytes: Through the command's link in all, however many machines there are.
        between_bytes: From worker to worker, over the links of all machines.
        command_bytes: Memory of the command's machine.
        worker_bytes: Memory of every machine.
        most_workers: More are of no use.
    """

    name: str
    worker_s: float
    command_s: float
    threads_s: float
    to_each_bytes: float
    moved_bytes: float
    command_bytes: float
    worker_bytes: float
    between_bytes: float = 0.0
    most_workers: float = float("inf")

    def sent_bytes(self, n_machines: int) -> float:
        """Return what passes the command's link; on one machine nothing does."""
        return (n_machines - 1) * self.to_each_bytes + self.moved_bytes * (1 - 1 / n_machines)

    def hours(self, n_machines: int, machines: Machines) -> float:
        """Return how long it takes; what is computed and what is sent do not overlap, which is the worst case."""
        workers = min(n_machines * machines.n_cores, self.most_workers)
        link_bytes_s = machines.network_gbit_s * _GIGA / _BITS
        between = self.between_bytes * (1 - 1 / n_machines) / n_machines
        sent = self.sent_bytes(n_machines) + between
        computed_s = self.worker_s / workers + self.command_s + self.threads_s / machines.n_cores
        return (computed_s + sent / link_bytes_s) / _HOUR_S

    def euros(self, n_machines: int, machines: Machines) -> float:
        """Return the price of all machines for that long."""
        return self.hours(n_machines, machines) * n_machines * machines.n_cores * machines.core_hour_eur


def ials(size: DataSize, costs: UnitCosts) -> Need:
    """Return what a training of `ials` needs, as docs/cluster.md describes it."""
    # An epoch solves users and items; at the end users are solved once more.
    halves = 2 * size.ials_epochs + 1
    rows = size.n_users + size.n_items
    n_tasks = halves * size.n_interactions / costs.most_interactions
    tables = size.user_table_bytes + size.item_table_bytes
    return Need(
        name=f"train ials, {size.ials_epochs} epochs",
        worker_s=halves * size.n_interactions * costs.ials_solve_us / 1e6,
        command_s=size.n_interactions * costs.read_us / 1e6 + n_tasks * costs.task_ms / 1e3,
        threads_s=size.ials_epochs * rows * costs.ials_row_us / 1e6,
        to_each_bytes=size.ials_epochs * tables + size.item_table_bytes,
        # The interactions once for each side, and the solved rows of each half epoch.
        moved_bytes=16 * size.n_interactions + 16 * rows + size.ials_epochs * tables + size.user_table_bytes,
        command_bytes=size.n_interactions * costs.interaction_bytes + tables,
        worker_bytes=size.user_table_bytes,
    )


def svd(size: DataSize, costs: UnitCosts) -> Need:
    """Return what a training of `svd` needs, with blocks that move between machines."""
    tables = (4 * size.n_factors + 4.0) * (size.n_users + size.n_items)
    moving = (4 * size.n_factors + 4.0) * size.n_items * size.svd_groups
    return Need(
        name=f"train svd, {size.svd_epochs} epochs",
        worker_s=size.svd_epochs * size.n_interactions * costs.svd_visit_us / 1e6,
        command_s=size.n_interactions * costs.read_us / 1e6
        + size.svd_epochs * size.svd_groups**2 * costs.task_ms / 1e3,
        threads_s=0.0,
        to_each_bytes=0.0,
        # The tables come and go in each epoch, and the factors of items go from machine to machine.
        moved_bytes=12 * size.n_interactions + size.svd_epochs * 2 * tables,
        between_bytes=size.svd_epochs * moving,
        command_bytes=size.n_interactions * costs.interaction_bytes + tables,
        worker_bytes=2 * tables / size.svd_groups,
        most_workers=size.svd_groups,
    )


def pure_svd(size: DataSize, costs: UnitCosts) -> Need:
    """Return what a training of `pure_svd` needs: four products with the matrix, and four with its transpose."""
    columns = size.n_factors + _OVERSAMPLED
    item_columns_bytes = 4.0 * columns * size.n_items
    tables = size.user_table_bytes + size.item_table_bytes
    n_rows = size.n_users + size.n_items
    n_tasks = 8 * _SVD_PARTS * (1 + size.n_users / (_SVD_PARTS * 1e6))
    return Need(
        name="train pure_svd",
        worker_s=8 * size.n_interactions * columns * costs.product_ns / 1e9 + 4 * n_rows * costs.gramian_us / 1e6,
        command_s=size.n_interactions * costs.read_us / 1e6 + n_tasks * costs.task_ms / 1e3,
        threads_s=0.0,
        to_each_bytes=4 * item_columns_bytes,
        moved_bytes=8 * size.n_interactions + 8 * size.n_users + tables,
        command_bytes=size.n_interactions * costs.interaction_bytes + tables,
        # The parts and tables of the users are where they were made: of two machines, half of them each.
        worker_bytes=item_columns_bytes + (8 * size.n_interactions + 4.0 * columns * size.n_users) / 2,
        # The sums of the items over the parts of the users.
        between_bytes=4 * item_columns_bytes * _SVD_PARTS,
    )


def lists(size: DataSize, costs: UnitCosts) -> Need:
    """Return what a generation of exact lists of 100 for all users needs."""
    n_tasks = size.n_users / costs.shard_users
    return Need(
        name="generate 100 items for each user",
        worker_s=size.n_users * (size.n_items * costs.list_ns / 1e9 + costs.user_us / 1e6),
        command_s=n_tasks * costs.task_ms / 1e3,
        threads_s=0.0,
        to_each_bytes=size.item_table_bytes,
        # Factors and seen items of the users go out, files come back.
        moved_bytes=size.user_table_bytes + 4 * size.n_interactions + size.n_users * costs.list_bytes,
        command_bytes=size.user_table_bytes + size.item_table_bytes + 8 * size.n_interactions,
        worker_bytes=size.item_table_bytes,
    )


WORKS: Final[tuple[Callable[[DataSize, UnitCosts], Need], ...]] = (ials, svd, pure_svd, lists)

HEADING: Final = ("work", "machines", "hours", "euros", "GB through the command", "GB at the command", "GB elsewhere")


def rows(size: DataSize, costs: UnitCosts, machines: Machines, counts: tuple[int, ...]) -> list[list[str]]:
    """Return a row for each work and number of machines."""
    found = []
    for work in WORKS:
        need = work(size, costs)
        found += [
            [
                need.name,
                str(n),
                f"{need.hours(n, machines):.1f}",
                f"{need.euros(n, machines):,.0f}",
                f"{need.sent_bytes(n) / _GIGA:,.0f}",
                f"{need.command_bytes / _GIGA:,.0f}",
                f"{need.worker_bytes / _GIGA:,.0f}",
            ]
            for n in counts
        ]
    return found

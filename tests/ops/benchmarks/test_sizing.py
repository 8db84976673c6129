import re
from pathlib import Path

import pytest

from ops.benchmarks.sizing import HEADING, DataSize, Machines, Need, UnitCosts, ials, lists, pure_svd, rows, svd

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cluster.md"


def test_the_page_has_what_the_benchmark_computes() -> None:
    """The table of docs/cluster.md is that of `python -m ops.benchmarks sizing`."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## Sizing\n")[2]
    lines = [line.strip("| ").split(" | ") for line in re.findall(r"^\| .*", text, re.MULTILINE)]
    assert lines[: lines.index(list(HEADING)) + 2][-2] == list(HEADING)
    begin = lines.index(list(HEADING)) + 2
    expected = rows(DataSize(100_000_000, 10_000_000), UnitCosts(), Machines(), (1, 4, 16))
    assert lines[begin : begin + len(expected)] == expected


def test_hours_are_those_of_the_unit_costs() -> None:
    """One core, no network: what is measured for a million interactions, times the interactions."""
    size = DataSize(1_000_000, 100_000, 20.0, ials_epochs=2)
    need = ials(size, UnitCosts())
    assert need.worker_s == pytest.approx(5 * 20e6 * 0.27e-6)
    assert need.worker_s == pytest.approx(28.7, rel=0.1)  # as measured, docs/benchmarks.md
    assert need.command_s + need.threads_s == pytest.approx(13.7, rel=0.2)
    generated = lists(size, UnitCosts())
    assert generated.worker_s / size.n_users == pytest.approx(270e-6, rel=0.1)
    small = pure_svd(DataSize(250_000, 50_000, 20.0), UnitCosts())
    assert small.worker_s == pytest.approx(3.3, rel=0.3)  # as measured
    assert small.command_s == pytest.approx(2.9, rel=0.3)
    assert svd(size, UnitCosts()).worker_s == pytest.approx(20 * 20e6 * 0.095e-6)


def test_only_what_workers_do_is_divided() -> None:
    """And the network of more machines can cost more than their cores gain."""
    need = Need("x", 3600.0, 360.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    machines = Machines(n_cores=1, network_gbit_s=8.0, core_hour_eur=2.0)
    assert need.hours(1, machines) == pytest.approx(1.1)
    assert need.hours(10, machines) == pytest.approx(0.2)
    assert need.euros(10, machines) == pytest.approx(4.0)
    bound = Need("x", 3600.0, 0.0, 0.0, 3600e9, 0.0, 0.0, 0.0)
    assert bound.hours(1, machines) == 1.0
    assert bound.hours(2, machines) == pytest.approx(1.5)
    shared = Need("x", 3600.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, between_bytes=3600e9)
    assert shared.hours(2, machines) == pytest.approx(0.75)
    few = Need("x", 3600.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, most_workers=4)
    assert few.hours(100, machines) == 0.25

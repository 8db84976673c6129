"""Tables of the command line."""

from ops.console.table import table


def test_a_table_that_fits_is_not_folded() -> None:
    """Numbers are right-aligned, names left-aligned; no line ends with spaces."""
    text = table(["name", "n"], [["a", "10"], ["bcdefg", "9"]], left={0}, width=80)
    assert text.splitlines() == ["name     n", "a       10", "bcdefg   9"]


def test_a_wide_table_is_folded_behind_its_first_column() -> None:
    """No line is longer than the terminal, and nothing is cut."""
    heading = ["version", *(f"measure-{number}" for number in range(9))]
    rows = [[f"svd-{row}", *(f"{row}.{number}" for number in range(9))] for row in range(3)]
    text = table(heading, rows, left={0}, width=40)
    assert max(map(len, text.splitlines())) <= 40
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert len(parts) == 3
    assert all([line.split()[0] for line in part] == ["version", "svd-0", "svd-1", "svd-2"] for part in parts)
    assert {cell for row in rows for cell in row} <= set(text.split())


def test_a_column_may_be_wider_than_the_terminal() -> None:
    """It is not cut."""
    text = table(["version", "data"], [["svd", "x" * 100]], width=40)
    assert "x" * 100 in text


def test_wide_characters_take_two_columns() -> None:
    """East Asian titles do not shift the cells after them."""
    lines = table(["title", "n"], [["\u6f22\u5b57", "1"], ["abcd", "2"]], left={0}, width=80).splitlines()
    assert lines == ["title  n", "\u6f22\u5b57   1", "abcd   2"]

from pathlib import Path

from service.executors.code_version import code_version


def test_the_version_changes_with_the_code_and_with_the_packages(tmp_path: Path) -> None:
    """And with nothing else: neither with the place of the code nor with files that are no code."""
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        (root / "service").mkdir(parents=True)
        (root / "service" / "a.py").write_text("A = 1\n")
    before = code_version(first)
    (first / "service" / "notes.txt").write_text("none")
    assert code_version(first) == code_version(second) == before
    assert code_version(first, packages=["numpy"]) != before
    assert code_version(first, packages=["numpy", "no-such-package"]) != code_version(first, packages=["numpy"])
    (second / "service" / "b.py").write_text("")
    assert code_version(second) != before
    (first / "service" / "a.py").write_text("A = 2\n")
    assert code_version(first) != before

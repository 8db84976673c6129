"""Makes a small base image of Debian with Python, where images of a registry cannot be had; standard library alone.

Run as root: `python3 -m ops.containers.base_image NAME`, with debootstrap and buildah. It has what
`debootstrap --variant=minbase` installs, without documents, translations and what apt has downloaded.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
_SOURCES: Final = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
_PACKAGES: Final = ("python3", "python3-venv")
_MACHINES: Final = ("x86_64", "aarch64")
# Copyright notices stay; the packages' licences ask for it.
_EMPTIED: Final = (
    *("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/man", "usr/share/info", "usr/share/locale"),
    # Character sets of iconv, which Python does not use, and what debconf would ask again.
    *(
        "usr/share/i18n",
        "usr/share/lintian",
        "usr/share/bug",
        *(f"usr/lib/{machine}-linux-gnu/gconv" for machine in _MACHINES),
    ),
    "var/cache/debconf",
)


def main() -> None:
    """Make the base image named on the command line."""
    make(sys.argv[1])


def make(name: str) -> None:
    """Make a base image and commit it under a name to buildah's storage.

    Raises:
        subprocess.CalledProcessError: debootstrap or buildah failed.
    """
    with tempfile.TemporaryDirectory(prefix="recollect-base-") as folder:
        root = Path(folder, "root")
        sources = [path.read_text() for path in _SOURCES if path.is_file()]
        place = [found] if (found := mirror(sources)) is not None else []
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", SUITE, str(root), *place)
        slim(root)
        archive = Path(folder, "root.tar")
        _run("tar", "--create", "--numeric-owner", "--directory", str(root), "--file", str(archive), ".")
        # Gone before buildah's copies need the space.
        shutil.rmtree(root)
        container = _run("buildah", "from", "scratch").strip()
        try:
            _run("buildah", "add", "--quiet", container, str(archive), "/")
            _run("buildah", "commit", "--quiet", container, name)
        finally:
            _run("buildah", "rm", container)


def mirror(sources: Iterable[str]) -> str | None:
    """Return where this machine's apt gets the suite from; None for debootstrap's own choice.

    Args:
        sources: Texts of apt's sources, in either format (sources.list(5)).
    """
    for text in sources:
        for line in re.findall(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{SUITE}\s+main\b", text, re.MULTILINE):
            return str(line)
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            wanted = (("Types", "deb"), ("Suites", SUITE), ("Components", "main"))
            if all(word in fields.get(name, "").split() for name, word in wanted) and fields.get("URIs"):
                return str(fields["URIs"].split()[0])
    return None


def slim(root: Path) -> None:
    """Remove from a root file system what no program reads."""
    for name in _EMPTIED:
        for path in (root / name).glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in (root / "usr/share/doc").rglob("*"):
        if not path.is_dir() and path.name != "copyright":
            path.unlink()


def _run(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
    done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    main()

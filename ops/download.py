"""Files over HTTP and from wheels: resumed, checked, and in place only when they are whole."""

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import aiohttp

from daemons.errors import Unavailable, in_words
from ops.progress import OnBytes

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
ATTEMPTS = 4
CHUNK_BYTES = 1 << 20


class WrongChecksum(Unavailable):
    """What came is not what was asked for."""


class Refused(Unavailable):
    """The server answered with a status that is none of success."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"{url}: {status} {reason}")
        self.status = status


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_of(path: Path) -> str:
    """What git calls a file of these bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def settle(part: Path, target: Path, wanted: str, checksum: Callable[[Path], str] = sha256_of) -> None:
    """Rename `part` to `target` if its checksum is right; otherwise delete it and raise WrongChecksum."""
    found = checksum(part)
    if found != wanted:
        part.unlink()
        raise WrongChecksum(f"checksum {found[:12]}… instead of {wanted[:12]}…")
    part.replace(target)


def fetch(url: str, part: Path, on_bytes: OnBytes, token: str = "") -> None:
    """Download to `part`, going on where an earlier attempt stopped. Raises Unavailable.

    `token` is shown to the server of `url` alone, not to those that it sends us to.
    """
    asyncio.run(_fetch(url, part, on_bytes, token))


def session(token: str = "") -> aiohttp.ClientSession:
    """With this module's time-outs; raises nothing for statuses."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
        headers={"Authorization": f"Bearer {token}"} if token else {},
        trust_env=True,
        auto_decompress=False,
    )


async def _fetch(url: str, part: Path, on_bytes: OnBytes, token: str) -> None:
    async with session(token) as http:
        for attempt in range(ATTEMPTS):
            before = _size(part)
            try:
                await _fetch_once(http, url, part, on_bytes)
            except aiohttp.ClientResponseError as error:
                raise Refused(url, error.status, error.message) from error
            except (aiohttp.ClientError, TimeoutError) as error:
                stuck = _size(part) == before
                if stuck or attempt == ATTEMPTS - 1:
                    raise Unavailable(f"{url}: {in_words(error)}") from error
            else:
                return


async def _fetch_once(http: aiohttp.ClientSession, url: str, part: Path, on_bytes: OnBytes) -> None:
    done = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    async with http.get(url, headers=headers) as response:
        if response.status == 416:  # nothing is left after what we have; the checksum judges it
            return
        response.raise_for_status()
        if response.status != 206:
            done = 0
        total = None if response.content_length is None else done + response.content_length
        with part.open("ab" if done else "wb") as file:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                on_bytes(done, total)


def fetch_wheel(requirement: str, folder: Path, on_bytes: OnBytes) -> Path:
    """Have pip, which knows the machine's registry, fetch `NAME==VERSION` without what it depends on.

    The wheels are wanted for their data, so the platform is the one that they are built for, whatever this machine is.
    Raises Unavailable with pip's own last words.
    """
    platform = ("--only-binary", ":all:", "--platform", "manylinux_2_34_x86_64")
    _pip_download(requirement, folder, on_bytes, *platform, requirement)
    return next(folder.glob("*.whl"))


def fetch_source(requirement: str, sha256: str, folder: Path, on_bytes: OnBytes) -> Path:
    """The same for the source of `NAME==VERSION`, a .tar.gz of that checksum; what tests need lies there only.

    pip asks the package's own build backend what it is, so it must see the checksum first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pinned = folder / "requirement.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="ascii")
    name = requirement.partition("==")[0]
    _pip_download(requirement, folder, on_bytes, "--no-binary", name, "--require-hashes", "--requirement", str(pinned))
    return next(folder.glob("*.tar.gz"))


def _pip_download(what: str, folder: Path, on_bytes: OnBytes, *wanted: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = (
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"),
        *("--progress-bar", "raw", "--timeout", "30", "--retries", "3", "--dest", str(folder)),
        *wanted,
    )
    words: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        for line in pip.stdout:
            match line.split():
                case ["Progress", done, "of", total]:
                    on_bytes(int(done), int(total) or None)
                case _:
                    words.append(line.strip())
    if pip.returncode:
        errors = [word for word in words if word.startswith("ERROR")] or words[-1:]
        raise Unavailable(f"{what}: {' '.join(errors)[:300]}")


def extract(wheel: Path, member: str, target: Path) -> None:
    """Write one member of a wheel. Raises Unavailable when it is not there or damaged."""
    partial = target.with_name(target.name + ".new")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, partial.open("wb") as file:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        partial.unlink(missing_ok=True)
        raise Unavailable(f"{wheel.name} holds no sound {member}: {error}") from error
    partial.replace(target)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0

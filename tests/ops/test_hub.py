"""Models of a hub, fetched from one that speaks its protocol."""

import json
from pathlib import Path

import pytest

from daemons.errors import ConfigurationError, Unavailable
from daemons.models import HubPlace, model_dir
from daemons.settings import Settings
from ops import models
from ops.free_ports import free_port
from tests.ops.conftest import MakeSettings
from tests.ops.hub import COMMIT, Hub

WEIGHTS = b"GGUF" + bytes(range(256)) * 4000
REPOSITORY = {"README.md": b"---\nlicense: apache-2.0\n---\n", "sub/tiny-q8.gguf": WEIGHTS, "tiny.gguf": WEIGHTS[::-1]}
NAME = "hf:acme/tiny/sub/tiny-q8.gguf"


def hub(**more: object) -> Hub:
    return Hub(repositories={"acme/tiny": REPOSITORY}, **more)  # type: ignore[arg-type]


def pull(settings: Settings, name: str = NAME) -> None:
    models.pull(settings, [name], models.catalogue())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("hf:acme/tiny", HubPlace("acme/tiny")),
        ("hf:acme/tiny-1.7B/a.gguf", HubPlace("acme/tiny-1.7B", "main", "a.gguf")),
        ("hf:acme/tiny@v1.0/sub/a.gguf", HubPlace("acme/tiny", "v1.0", "sub/a.gguf")),
    ],
)
def test_a_place_is_read(name: str, place: HubPlace) -> None:
    assert HubPlace.parse(name) == place


@pytest.mark.parametrize(
    "name",
    [
        "hf:",
        "hf:acme",
        "hf:acme/",
        "hf:../..",
        "hf:acme/tiny/../../x",
        "hf:acme/tiny/",
        "hf:a/b c",
        "hf:a/b@",
        "hf:./b",
    ],
)
def test_what_is_no_place_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is wanted"):
        pull(settings, name)


def test_a_file_of_a_repository_lies_where_daemons_look(make_settings: MakeSettings) -> None:
    with hub() as served:
        settings = make_settings(hub_url=served.url)
        with pytest.raises(ConfigurationError, match=f"callbox models pull {NAME}"):
            model_dir(settings, NAME)
        pull(settings)
    place = model_dir(settings, NAME)
    assert (place.name, place.read_bytes()) == ("tiny-q8.gguf", WEIGHTS)
    model = models.known(settings)[NAME]
    assert (model.role, model.licence, model.engines[0]) == ("llm", "apache-2.0", "llamacpp")
    assert models.missing(settings, NAME, model) == models.damaged(settings, NAME, model) == []
    assert served.asked[-1] == f"/acme/tiny/resolve/{COMMIT}/sub/tiny-q8.gguf"  # of the commit that was listed


def test_the_licence_is_shown(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    with hub(licence="cc-by-nc-4.0") as served:
        pull(make_settings(hub_url=served.url))
    assert "licence cc-by-nc-4.0" in capsys.readouterr().out


def test_what_is_there_is_not_asked_for_again(make_settings: MakeSettings) -> None:
    with hub() as served:
        settings = make_settings(hub_url=served.url)
        pull(settings)
    pull(settings)  # the hub is gone


def test_a_cut_download_goes_on_in_this_run_and_in_the_next(make_settings: MakeSettings) -> None:
    with hub(cut_after=(300_000, 100_000, 0, 0)) as served:
        settings = make_settings(hub_url=served.url)
        with pytest.raises(Unavailable, match="no source gives"):
            pull(settings)
        assert served.ranges == [None, "bytes=300000-", "bytes=400000-"]
        served.cuts.clear()
        served.ranges.clear()
        pull(settings)
        assert served.ranges == ["bytes=400000-"]
    assert model_dir(settings, NAME).read_bytes() == WEIGHTS


def test_it_goes_on_where_it_stopped_though_the_repository_has_moved_on(make_settings: MakeSettings) -> None:
    with hub(cut_after=(300_000, 0)) as served:
        settings = make_settings(hub_url=served.url)
        with pytest.raises(Unavailable):
            pull(settings)
        served.claims["sub/tiny-q8.gguf"] = b"GGUF of a later commit"
        pull(settings)
    assert model_dir(settings, NAME).read_bytes() == WEIGHTS


def test_a_wrong_checksum_is_refused_and_nothing_of_it_stays(make_settings: MakeSettings) -> None:
    with hub(claims={"sub/tiny-q8.gguf": WEIGHTS[:-1] + b"x"}) as served:
        settings = make_settings(hub_url=served.url)
        with pytest.raises(Unavailable, match="checksum"):
            pull(settings)
    assert [path for path in settings.models_dir.rglob("*.gguf*") if path.is_file()] == []


def test_small_files_are_checked_by_what_git_calls_them(make_settings: MakeSettings) -> None:
    files = {"config.json": b'{"architectures": ["TinyForCausalLM"]}', "model.safetensors": WEIGHTS, "a.py": b"evil"}
    with Hub(repositories={"acme/torch": files}) as served:
        settings = make_settings(hub_url=served.url)
        pull(settings, "hf:acme/torch")
        place = model_dir(settings, "hf:acme/torch")
        assert (place / "config.json").read_bytes() == files["config.json"]
        assert not (place / "a.py").exists()
        (place / "config.json").write_bytes(b"{}")
        model = models.known(settings)["hf:acme/torch"]
        assert [file.name for file in models.damaged(settings, "hf:acme/torch", model)] == ["config.json"]
        served.repositories["acme/other"] = files
        served.claims["config.json"] = b"{}"
        with pytest.raises(Unavailable, match="checksum"):
            pull(settings, "hf:acme/other")


def test_files_come_from_where_the_hub_sends_us_and_its_token_stays_with_the_hub(make_settings: MakeSettings) -> None:
    with hub(cut_after=(300_000,)) as store, hub(elsewhere=store, token="hub-token") as served:
        settings = make_settings(hub_url=served.url, hub_token="hub-token")
        pull(settings)
        assert store.ranges == [None, "bytes=300000-"]
    assert model_dir(settings, NAME).read_bytes() == WEIGHTS
    assert served.tokens == {"Bearer hub-token"}
    assert store.tokens == {None}


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_repository_that_wants_a_token_says_so(make_settings: MakeSettings, token: str) -> None:
    with hub(token="right") as served:
        settings = make_settings(hub_url=served.url, hub_token=token)
        with pytest.raises(ConfigurationError, match="HF_TOKEN"):
            pull(settings)


def test_terms_that_nobody_has_accepted_are_named(make_settings: MakeSettings) -> None:
    with hub(gated=("acme/tiny",)) as served, pytest.raises(Unavailable, match="accept its terms"):
        pull(make_settings(hub_url=served.url))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:acme/none", "has no acme/none"),
        ("hf:acme/tiny@v9/tiny.gguf", r"has no acme/tiny \(revision v9\)"),
        ("hf:acme/tiny/none.gguf", "no such file; it has README.md, sub/tiny-q8.gguf"),
        ("hf:acme/tiny/README.md", "a .gguf alone"),
        ("hf:acme/tiny", "holds 2 models; name one of them: sub/tiny-q8.gguf, tiny.gguf"),
        ("hf:acme/empty", "nothing that an engine here runs"),
    ],
)
def test_what_the_hub_does_not_have_is_said(make_settings: MakeSettings, name: str, said: str) -> None:
    with hub() as served:
        served.repositories["acme/empty"] = {"README.md": b""}
        with pytest.raises(ConfigurationError, match=said):
            pull(make_settings(hub_url=served.url), name)


def test_one_size_is_chosen_as_llama_cpp_would_and_shards_come_together(make_settings: MakeSettings) -> None:
    sizes = {"m-Q8_0.gguf": b"GGUF8", "m-Q4_K_M.gguf": b"GGUF4", "m-f16-00001-of-00002.gguf": b"GGUFa"}
    with Hub(repositories={"acme/sizes": sizes | {"m-f16-00002-of-00002.gguf": b"GGUFb"}}) as served:
        settings = make_settings(hub_url=served.url)
        pull(settings, "hf:acme/sizes")
        assert [path.name for path in model_dir(settings, "hf:acme/sizes").glob("*.gguf")] == ["m-Q4_K_M.gguf"]
        shard = "hf:acme/sizes/m-f16-00001-of-00002.gguf"
        pull(settings, shard)
        assert len(list(model_dir(settings, shard).parent.glob("*.gguf"))) == 2


def test_no_network_is_said_in_words(make_settings: MakeSettings) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"the hub {url} does not answer .*is this machine online"):
        pull(make_settings(hub_url=url))
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE"):
        pull(make_settings(hub_url=url, hub_offline=True))


def test_an_address_that_is_no_hub_is_said(make_settings: MakeSettings) -> None:
    listing = "/api/models/acme/tiny/revision/main"
    for content in (b"<html>Sign in to this network</html>", json.dumps({"sha": 1}).encode()):
        with Hub({listing: content}) as served, pytest.raises(Unavailable, match="no listing"):
            pull(make_settings(hub_url=served.url))


def test_a_full_disk_is_said_in_words(make_settings: MakeSettings) -> None:
    with hub() as served:
        settings = make_settings(hub_url=served.url)
        models.from_hub(settings, NAME)
        full = settings.models_dir / "hf/acme--tiny--sub--tiny-q8.gguf/sub/tiny-q8.gguf.hf.part"
        full.parent.mkdir()
        full.symlink_to("/dev/full")
        with pytest.raises(ConfigurationError, match=r"is full\. Make room"):
            pull(settings)
        full.unlink()
        pull(settings)
    assert model_dir(settings, NAME).read_bytes() == WEIGHTS


def test_a_damaged_note_of_what_was_fetched_is_named(make_settings: MakeSettings) -> None:
    with hub() as served:
        settings = make_settings(hub_url=served.url)
        pull(settings)
        [note] = Path(settings.models_dir).rglob("callbox.json")
        note.write_text("{")
        assert NAME not in models.known(settings)
        with pytest.raises(ConfigurationError, match=f"{note} cannot be read: delete it"):
            pull(settings)

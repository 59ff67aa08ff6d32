"""The bench, on a checkpoint so small that it takes seconds; its figures are those of no real voice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from daemons.tts.engines.qwen3 import bench  # noqa: E402
from tests.tts.qwen3 import checkpoint  # noqa: E402

FRAMES = 10
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    checkpoint.write(folder)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
    return bench.main()


def test_it_measures_and_finds_the_sound_exact(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--weights", folder, "--device", "cpu", "--streams", 1, 2, "--rounds", 2, "--frames", FRAMES)
    assert run(monkeypatch, *asked, "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert [(one["streams"], one["packets"]) for one in report["runs"]] == [
        (streams, packets) for streams in (1, 2) for packets in ([1, 2, 4, 8, 12], [2])
    ]
    for one in report["runs"]:
        assert one["n"] == 2 * one["streams"]
        assert one["snr_to_whole_db"] > 90
        assert 0 < one["ttfa_ms"]["p50"] <= one["ttfa_ms"]["p95"]
        assert one["launches"] is None
    hashes = {one["streams"]: one["codes_sha256"] for one in report["runs"]}
    assert [one["codes_sha256"] for one in report["runs"]] == [hashes[1], hashes[1], hashes[2], hashes[2]]
    assert report["checks"] == {"the same codes each time": True}


def test_it_shows_a_table_beside_what_others_published(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--weights", folder, "--device", "cpu", "--streams", 1, "--rounds", 1, "--frames", 3)
    assert run(monkeypatch, *asked) == 0
    shown = capsys.readouterr().out
    assert "TTFA ms P50" in shown
    assert "faster-qwen3-tts" in shown


def test_what_is_no_checkpoint_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--weights", tmp_path, "--device", "cpu") == 2
    assert "config.json" in capsys.readouterr().err


def test_it_runs_where_nothing_of_the_house_is_installed() -> None:
    """A GPU machine has torch, numpy and safetensors; whatever these bring along does not count."""
    loads = (
        "import sys, torch, numpy, safetensors.torch; theirs = set(sys.modules); "
        "import daemons.tts.engines.qwen3.bench; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - theirs} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(done.stdout.split()) - {"numpy", "safetensors", "torch"} == {"daemons"}


def test_it_tells_how_far_a_quantized_talker_strays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    asked = ("--weights", folder, "--device", "cpu", "--streams", 1, "--rounds", 1, "--frames", 4)
    assert run(monkeypatch, *asked, "--quantization", "int8", "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["quantization"] == "int8"
    assert report["drift"]["frames"] == report["drift"]["talker"]["n"] == 4
    assert 25 < report["drift"]["talker"]["snr_db"] < 60
    assert all(run["snr_to_whole_db"] > 90 for run in report["runs"]), "the codec stays exact"
    assert run(monkeypatch, *asked, "--quantization", "int8") == 0
    assert "codes drawn alike" in capsys.readouterr().out

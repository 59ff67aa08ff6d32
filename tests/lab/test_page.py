"""The report as its reader gets it: made of the folder alone, whole in itself, and safe whatever was said."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.lab import page
from tests.lab.kept_runs import good, keep, spoilt, traced
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox

HOSTILE = '</details><script>alert("1")</script><img src=https://example.org/x onerror=alert(1)> | `a` {{ 7 * 7 }}'


class Reader(HTMLParser):
    """The tags, what they refer to, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.refers_to: list[str] = []
        self.opened: list[bool] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        self.refers_to += [given[name] or "" for name in names if name in given]
        if tag == "details":
            self.opened.append("open" in given)

    def handle_data(self, data: str) -> None:
        self.text += data


def laid(folder: Path) -> tuple[Reader, str]:
    written = page.lay(folder, folder.parent)
    return Reader(written.read_text(encoding="utf-8")), (folder / page.TEXT).read_text(encoding="utf-8")


def texts(folder: Path) -> list[str]:
    """Of both files, without their sounds: an Ogg stream has a number that is drawn by chance."""
    written = [(folder / name).read_text(encoding="utf-8") for name in (page.PAGE, page.TEXT)]
    return [re.sub('data:audio/ogg;base64,[^"]*', "", text) for text in written]


def test_a_good_run_says_so_and_shows_each_turn(tmp_path: Path) -> None:
    read, markdown = laid(keep(tmp_path / "run", good(), good("again", voice=1)))
    assert "This build sounds right" in read.text
    assert "This build sounds right" in markdown
    for name in ("france-1", "again-1"):
        assert name in read.text
        assert name in markdown
    assert read.opened == [False, False, False]  # two turns, and what the run was made with
    assert read.tags.count("audio") == 4
    assert "What to do" not in read.text


def test_a_missed_gate_is_named_with_what_to_do_and_its_turn_is_open(tmp_path: Path) -> None:
    read, markdown = laid(keep(tmp_path / "run", good(), spoilt("gap")))
    for text in (read.text, markdown):
        assert "2 gates missed: longest gap, dropout" in text
        assert "A hole in the voice" in text
    assert read.opened == [False, True, False]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", good(), spoilt("gap"))
    read, _ = laid(folder)
    assert read.refers_to
    assert [place[:40] for place in read.refers_to if not place.startswith(("data:", "#"))] == []
    assert not {"script", "link", "iframe", "object", "base"} & set(read.tags)
    written = (folder / page.PAGE).read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import", written)
    assert len(written) < 2 * 8e6 / 16


def test_what_was_said_is_text_and_nothing_else(tmp_path: Path) -> None:
    hostile = traced(answer=HOSTILE).model_copy(update={"said": HOSTILE, "understood": HOSTILE})
    read, markdown = laid(keep(tmp_path / "run", good(of=hostile)))
    assert not {"script", "img"} & set(read.tags)
    assert HOSTILE in read.text
    assert "<script>" not in markdown
    assert "\\<script\\>" in markdown
    assert "\n- answer: \\<" in markdown


def test_it_is_made_again_from_the_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_VAR_DIR", str(tmp_path))
    folder = keep(tmp_path / "lab/20260101T000000Z-abcdef", good())
    page.lay(folder, folder.parent)
    before = texts(folder)
    for name in (page.PAGE, page.TEXT):
        (folder / name).unlink()
    for named in (folder.name, str(folder)):
        result = CliRunner().invoke(app, ["lab", "report", named])
        assert result.exit_code == 0, result.output
        assert result.output.strip() == str(folder / page.PAGE)
    assert texts(folder) == before


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_VAR_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["lab", "report", "nothing"])
    assert result.exit_code == 1
    assert "is no run of the lab" in result.output


def test_a_trend_begins_with_the_second_run(tmp_path: Path) -> None:
    for day, first_audio_ms in enumerate((640.0, 700.0, 1600.0), 1):
        path = keep(tmp_path / f"2026010{day}T000000Z-abcdef", good(of=traced(first_audio_ms))) / "report.json"
        dated = json.loads(path.read_bytes()) | {"when": f"2026-01-0{day}T00:00:00Z"}
        path.write_text(json.dumps(dated), encoding="utf-8")
    pages = [laid(tmp_path / f"2026010{day}T000000Z-abcdef")[0] for day in (1, 2, 3)]
    assert "No earlier run of the same turns" in pages[0].text
    assert ["No earlier run" in one.text for one in pages] == [True, False, False]
    name = "end of speech → first audio heard, P95"
    assert [one.text.count(f"{name}: ") for one in pages] == [0, 1, 1]
    gates = json.loads((tmp_path / "20260103T000000Z-abcdef/report.json").read_bytes())["bounds"]
    assert pages[2].tags.count("svg") - pages[0].tags.count("svg") == len(gates)

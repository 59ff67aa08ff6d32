from pathlib import Path

import pytest

from ops import page
from tests.ops.conftest import MakeSettings


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page's sources, and an npm that notes what it is asked and builds a copy."""
    folder, tools = tmp_path / "web", tmp_path / "bin"
    (folder / "src").mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    (folder / "src/page.txt").write_text("one")
    tools.mkdir()
    (tools / "node").write_text("#!/bin/sh\necho v22.12.0\n")
    build = '[ "$1" = run ] && { rm -rf dist; mkdir -p dist/assets; cp src/page.txt dist/assets/; }'
    (tools / "npm").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n{build}\nexit 0\n')
    for program in tools.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    monkeypatch.setattr(page, "WEB", folder)
    return folder


def calls(web: Path) -> list[str]:
    return (web.parent / "calls").read_text().splitlines()


def test_the_page_is_built_when_its_sources_change(web: Path, make_settings: MakeSettings) -> None:
    settings = make_settings()
    page.build(settings)
    page.publish(settings)
    assert calls(web) == ["ci --no-audit --no-fund", "run build"]
    page.build(settings)
    assert len(calls(web)) == 2
    (web / "src/page.txt").write_text("two")
    page.build(settings)
    assert len(calls(web)) == 4


def test_the_new_page_takes_the_old_ones_place_at_once(web: Path, make_settings: MakeSettings) -> None:
    settings = make_settings()
    served = page.www_dir(settings)
    page.build(settings)
    page.publish(settings)
    assert (served / "assets/page.txt").read_text() == "one"
    assert not (served / ".sources").exists()
    first = served.readlink()
    page.publish(settings)
    assert served.readlink() == first
    (web / "src/page.txt").write_text("two")
    page.build(settings)
    page.publish(settings)
    assert (served / "assets/page.txt").read_text() == "two"
    assert list(served.parent.glob("www-*")) == [served.parent / served.readlink()]


@pytest.mark.parametrize(
    ("said", "suffices"),
    [
        ("v18.19.0", False),
        ("v20.18.1", False),
        ("v20.19.0", True),
        ("v21.7.3", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.19.0", True),
        ("nonsense", False),
    ],
)
def test_vite_takes_only_some_nodes(tmp_path: Path, said: str, suffices: bool) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {said}\n")
    node.chmod(0o755)
    assert page._node_suffices(node) is suffices

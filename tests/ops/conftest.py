import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons.settings import Settings
from ops import kept
from ops.free_ports import free_pair, free_port

MakeSettings = Callable[..., Settings]


@pytest.fixture
def var_dir() -> Iterator[Path]:
    """Short enough for a Unix socket, wherever pytest's own folders lie."""
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        Path(folder).chmod(0o755)  # nginx's workers are another user's when root runs this
        yield Path(folder)


@pytest.fixture
def make_settings(var_dir: Path) -> MakeSettings:
    """Settings of a box of its own on free ports, with its secrets made; kept, so that its daemons read the same."""
    kept.make_secrets(var_dir)
    single = ("http", "https", "redis", "livekit", "livekit_udp", "livekit_tcp")
    paired = ("stt", "llm", "tts", "agent", "token", "monitor")
    numbers: dict[str, Any] = {f"{name}_port": free_port() for name in single}
    numbers |= {f"{name}_port": free_pair() for name in paired}

    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = (
            {"var_dir": var_dir, "www_dir": var_dir / "www", "models_dir": var_dir / "models", "hub_offline": False}
            | numbers
            | changes
        )
        kept_lines = [f"CALLBOX_{name.upper()}='{value}'\n" for name, value in values.items()]
        kept.write_private(var_dir / "callbox.env", "".join(kept_lines))
        return Settings(_env_file=(var_dir / "secrets.env",), **values)

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()

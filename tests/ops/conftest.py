import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons.settings import Settings
from ops import kept

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
    ports = free_ports(18)
    names = ("http", "https", "redis", "livekit", "livekit_udp", "livekit_tcp")
    numbers: dict[str, Any] = {f"{name}_port": ports.pop() for name in names}
    for name in ("stt", "llm", "tts", "agent", "token", "monitor"):
        numbers[f"{name}_port"] = _free_pair(set(numbers.values()))

    def make(**changes: Any) -> Settings:
        values = {"var_dir": var_dir, "www_dir": var_dir / "www", "models_dir": var_dir / "models"} | numbers | changes
        kept_lines = [f"CALLBOX_{name.upper()}='{value}'\n" for name, value in values.items()]
        kept.write_private(var_dir / "callbox.env", "".join(kept_lines))
        return Settings(_env_file=(var_dir / "secrets.env",), **values)

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _free_pair(taken: set[int]) -> int:
    """A port whose next one is free too."""
    while True:
        port = free_ports(1)[0]
        if {port - 1, port, port + 1} & taken or port >= 65535:
            continue
        with socket.socket() as health:
            try:
                health.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
        return port

"""The engine as the worker has it, on a tiny checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import numpy as np  # noqa: E402

from daemons.errors import ConfigurationError  # noqa: E402
from daemons.tts.engines.qwen3.engine import Qwen3  # noqa: E402
from daemons.tts.engines.qwen3.quantization import Quantization  # noqa: E402
from tests.tts.qwen3 import checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "tiny"
    checkpoint.write(folder)
    return folder


@pytest.fixture(autouse=True)
def card_settings() -> Iterator[None]:
    """They hold for the whole process; here they are the other way round at first."""
    backends = torch.backends
    before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic = True, True, False
    yield
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic = before


def engine(folder: Path, *, voice: str = "ryan", quantization: Quantization = "none") -> Qwen3:
    return Qwen3(folder, voice=voice, device="cpu", quantization=quantization, threads=1, slots=2)


def said(engine: Qwen3, text: str) -> np.ndarray:
    heard: list[np.ndarray] = []
    stream = engine.open(seed=1, on_audio=heard.append, on_end=lambda _: None)
    stream.write(text)
    stream.end()
    while engine.step():
        pass
    return np.concatenate(heard)


def test_a_card_would_compute_the_codec_exactly_and_always_alike(folder: Path) -> None:
    engine(folder).load()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.deterministic


def test_a_voice_that_the_checkpoint_lacks_is_a_setting_to_mend(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no voice nobody; there are dylan, ryan"):
        engine(folder, voice="nobody").load()


def test_fp8_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fp8 wants a graphics card"):
        engine(tmp_path, quantization="fp8").load()


def test_a_quantized_talker_says_something_else_each_time_alike(folder: Path) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    exact, rounded = engine(folder), engine(folder, quantization="int8")
    exact.load()
    rounded.load()
    text = "The quick brown fox."
    first = said(rounded, text)
    assert np.array_equal(first, said(rounded, text))
    assert not np.array_equal(first, said(exact, text))

from typing import Any

import pytest


@pytest.fixture(scope="session")
def weights() -> Any:
    """Of the tiny decoder, under their published names."""
    pytest.importorskip("torch", reason="torch is not installed")
    from daemons.tts.engines.qwen3.codec.weights import random_weights  # noqa: PLC0415 - needs torch
    from tests.tts.qwen3.codec.streams import TINY  # noqa: PLC0415

    return random_weights(TINY, seed=7)


@pytest.fixture(scope="session")
def decoder(weights: Any) -> Any:
    from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder  # noqa: PLC0415 - needs torch
    from daemons.tts.engines.qwen3.codec.weights import build  # noqa: PLC0415
    from tests.tts.qwen3.codec.streams import TINY  # noqa: PLC0415

    return IncrementalDecoder(build(TINY, weights))

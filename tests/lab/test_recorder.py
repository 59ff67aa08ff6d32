"""A chirp in a recording is found where it is, and nowhere else."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from daemons.audio import to_int16
from daemons.errors import Unavailable
from daemons.settings import Settings
from ops.lab.recorder import CHIRPS, chirp, heard_ns, path_ms
from ops.livekit_server import LiveKitServer
from ops.robot import RATE_HZ, Heard

BEGAN_NS = 7_000_000_000


def recording(delay_ms: float, loudness: float = 1.0) -> Heard:
    random = np.random.default_rng(0)
    samples = random.normal(0, 0.003, RATE_HZ * 12 // 10)
    at = round(delay_ms / 1000 * RATE_HZ)
    samples[at : at + len(chirp())] += loudness * chirp()
    return Heard(BEGAN_NS, [to_int16(samples.astype(np.float32))], len(samples))


@pytest.mark.parametrize("delay_ms", [0.0, 61.25, 640.0])
@pytest.mark.parametrize("loudness", [0.05, 1.0])
def test_a_chirp_is_found_however_soft(delay_ms: float, loudness: float) -> None:
    found_ns = heard_ns(recording(delay_ms, loudness), BEGAN_NS)
    assert (found_ns - BEGAN_NS) / 1e6 == pytest.approx(delay_ms, abs=0.1)


@pytest.mark.parametrize("heard", [recording(0.0, loudness=0.0), Heard()])
def test_where_there_is_none_none_is_found(heard: Heard) -> None:
    with pytest.raises(Unavailable, match="recorder"):
        heard_ns(heard, BEGAN_NS)


@pytest.mark.integration
def test_what_livekit_is_given_is_heard_soon(tmp_path: Path) -> None:
    with LiveKitServer(tmp_path) as server:
        found_ms = asyncio.run(path_ms(Settings(**server.settings)))
    assert len(found_ms) == CHIRPS
    assert all(0 < one < 600 for one in found_ms)

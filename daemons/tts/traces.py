"""The audio made for calls that are recorded, as it left the engine's worker and before any playout."""

import numpy as np

from daemons.audio import TTS_RATE_HZ, Pcm, Samples, wav_bytes
from daemons.tts.kept import Kept

KEPT_TRACES = 256
KEPT_S = 900.0
KEPT_BYTES = 96 * 2**20  # 35 minutes


class Traces:
    def __init__(self) -> None:
        self._kept: Kept[list[Samples]] = Kept(count=KEPT_TRACES, age_s=KEPT_S, total_bytes=KEPT_BYTES)

    def add(self, trace: str, samples: Samples) -> None:
        parts = self._kept.get(trace) or []
        parts.append(samples)
        self._kept.keep(trace, parts, sum(part.nbytes for part in parts))

    def wav(self, trace: str) -> bytes | None:
        """All that was made under this name, in that order; None when nothing is kept (any more)."""
        parts = self._kept.get(trace)
        return None if parts is None else wav_bytes(Pcm(np.concatenate(parts), TTS_RATE_HZ))

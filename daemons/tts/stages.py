"""What each stage of the work costs for the audio that it makes, and a warning when one is slower than speech."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

log = logging.getLogger(__name__)

STAGES = ("synthesis", "finishing")
RTF_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.75, 1, 1.5, 2, 5)
WARN_AGAIN_S = 60.0


@dataclass(slots=True)
class _Slow:
    warned_s: float
    unsaid: int = 0  # how often since then


class Stages:
    def __init__(self, metrics: CollectorRegistry, now_s: Callable[[], float] = time.monotonic) -> None:
        self._compute_s = Counter(
            "callbox_compute_seconds_total", "Work of a stage; by audio it is the RTF", ["stage"], registry=metrics
        )
        self._rtf = Histogram(
            "callbox_tts_chunk_rtf", "Work by audio, of each chunk", ["stage"], buckets=RTF_BUCKETS, registry=metrics
        )
        for stage in STAGES:
            self._compute_s.labels(stage)
            self._rtf.labels(stage)
        self._audio_s = Counter("callbox_audio_seconds_total", "Audio made", registry=metrics)
        self._now_s = now_s
        self._slow: dict[str, _Slow] = {}

    def observe(self, worked_s: Mapping[str, float], audio_s: float) -> None:
        """One chunk is done: what each stage worked for it, and how much audio came of it."""
        self._audio_s.inc(audio_s)
        for stage, stage_s in worked_s.items():
            self._compute_s.labels(stage).inc(stage_s)
            if audio_s:
                self._rtf.labels(stage).observe(stage_s / audio_s)
                if stage_s > audio_s:
                    self._warn(stage, stage_s, audio_s)

    def _warn(self, stage: str, stage_s: float, audio_s: float) -> None:
        """Once, and again no sooner than in a minute: a machine that is too slow is so at every chunk."""
        slow, now_s = self._slow.get(stage), self._now_s()
        if slow is not None and now_s - slow.warned_s < WARN_AGAIN_S:
            slow.unsaid += 1
            return
        since = f", and {slow.unsaid} chunks since the last warning" if slow is not None and slow.unsaid else ""
        log.warning(
            "stage %s is slower than speech: RTF %.2f (%.2f s for %.2f s of audio%s)",
            *(stage, stage_s / audio_s, stage_s, audio_s, since),
        )
        self._slow[stage] = _Slow(now_s)

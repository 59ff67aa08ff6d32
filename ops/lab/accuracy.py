"""How wrong the lab's own figures are: answers with delays and holes that are known, through a LiveKit server."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from daemons.audio import Pcm, Samples
from daemons.settings import Settings
from ops.caller import speech_start_ns
from ops.figures import Bound, Report, Summary
from ops.lab.measures import Measures, measure
from ops.lab.recorder import path_ms, two_robots
from ops.lab.signals import FRAME_MS, active, frame_starts, levels_dbfs, signal_of
from ops.livekit_server import LiveKitServer
from ops.robot import RATE_HZ, Robot

DELAYS_S = (0.3, 1.2)  # from the end of the caller's speech to the answer's first sample
HOLES_MS = (0, 40, 80, 160, 320)  # in turn
AFTER_S = 0.8
DELAY_P95_LIMIT_MS = 30.0
HOLE_P95_LIMIT_MS = 20.0


@dataclass(slots=True)
class Taken:
    """Errors are measured minus true."""

    path_ms: list[float]
    delay_errors_ms: list[float] = field(default_factory=list)
    hole_errors_ms: list[float] = field(default_factory=list)
    unfound: int = 0  # holes, or answers, of which nothing could be measured
    false_holes: int = 0


async def run(answers: Sequence[Pcm], turns: int, folder: Path, on_turn: Callable[[int], None]) -> Taken:
    """`answers` are spoken in turn. Raises StepFailed or Unavailable."""
    random = np.random.default_rng(0)
    with LiveKitServer(folder) as server:
        settings = Settings(**server.settings)
        taken = Taken(await path_ms(settings))
        async with two_robots(settings) as (agent, caller):
            for number in range(turns):
                hole_ms = HOLES_MS[number % len(HOLES_MS)]
                answer = answers[number % len(answers)].resampled(RATE_HZ)
                await _turn(agent, caller, answer, random.uniform(*DELAYS_S), hole_ms, taken)
                on_turn(1)
    return taken


async def _turn(agent: Robot, caller: Robot, answer: Pcm, delay_s: float, hole_ms: int, taken: Taken) -> None:
    """The caller has just stopped speaking."""
    stopped_ns = time.monotonic_ns()
    await asyncio.sleep(delay_s)
    began_ns = await agent.say(_with_hole(answer, hole_ms))
    await asyncio.sleep(AFTER_S)
    audible_ns = caller.heard.audible_ns(stopped_ns)
    said = signal_of(answer)
    found = measure(said, signal_of(caller.heard.between(began_ns, time.monotonic_ns())))
    if audible_ns is None or not np.isfinite(found.active_dbfs):
        taken.unfound += 1
        return
    first_sound_ns = began_ns + speech_start_ns(answer)
    taken.delay_errors_ms.append((audible_ns - first_sound_ns) / 1e6 - statistics.median(taken.path_ms))
    _judge_hole(found, hole_ms, taken)


def _judge_hole(found: Measures, hole_ms: int, taken: Taken) -> None:
    if not hole_ms:
        taken.false_holes += found.max_gap_ms > 0
    elif found.max_gap_ms > 0:
        taken.hole_errors_ms.append(found.max_gap_ms - hole_ms)
    else:
        taken.unfound += 1


def _with_hole(answer: Pcm, milliseconds: int) -> Pcm:
    """Silence in the first place in which somebody speaks all the while."""
    if not milliseconds:
        return answer
    signal = signal_of(answer)
    speaks = active(levels_dbfs(signal, frame_starts(signal)))
    frames = milliseconds // FRAME_MS
    first = next(at for at in range(len(speaks) - frames) if np.all(speaks[at : at + frames]))
    samples: Samples = answer.samples.copy()
    samples[first * RATE_HZ * FRAME_MS // 1000 :][: milliseconds * RATE_HZ // 1000] = 0
    return Pcm(samples, answer.rate_hz)


def report(taken: Taken) -> Report:
    found = Report("How wrong the lab's own figures are")
    found.samples = {
        "a sample given to LiveKit → recorded (chirps)": Summary.of(taken.path_ms),
        "first audio, error without its sign": Summary.of(map(abs, taken.delay_errors_ms)),
        "length of a hole, error without its sign": Summary.of(map(abs, taken.hole_errors_ms)),
    }
    found.counts["first audio, error, median"] = statistics.median(taken.delay_errors_ms)
    found.counts["length of a hole, error, median"] = statistics.median(taken.hole_errors_ms)
    delays, holes = list(found.samples.values())[1:]
    found.bounds = [
        Bound("first audio, error, P95", delays.p95_or_max, DELAY_P95_LIMIT_MS, "ms"),
        Bound("length of a hole, error, P95", holes.p95_or_max, HOLE_P95_LIMIT_MS, "ms"),
        Bound("answers or holes that were not found", taken.unfound, 0),
        Bound("holes found where there are none", taken.false_holes, 0),
    ]
    return found

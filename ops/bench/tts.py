"""The speech worker's regression suite: what it says, how soon and how fast, over the doors that its clients use."""

import asyncio
import hashlib
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from daemons.audio import TTS_RATE_HZ, Pcm, Samples
from ops.bench import golden, waves
from ops.bench.answers import ANSWERS, CASES
from ops.bench.golden import Golden
from ops.bench.seams import Seam, median_size, seams
from ops.bench.speaking import Heard, Speaker
from ops.caller import recognise
from ops.figures import Bound, Report, Summary
from ops.metrics import metrics_at
from ops.redis_server import RedisServer
from ops.run import StepFailed
from ops.slope import Slope
from ops.words import WordErrors
from ops.worker import Worker

TIMEOUT_S = 120.0
WORDS_PER_S = 20.0
AT_ONCE = 2  # clients of the stress run
ROUNDS_THAT_TELL = 100  # of memory
WARM_SHARE = 0.25  # of the stress run's rounds, in which memory may still grow

LEAST_SNR_DB = 15.0
FIRST_AUDIO_LIMIT_MS = 300.0
DURATION_LIMIT_MS = 50.0
PACE_LIMIT_PCT = 10.0
CLICK_LIMIT = 2.0
LEVEL_LIMIT_DB = 3.0
JUMP_LIMIT = 1.5
WORSE_WORDS_LIMIT_PCT = 2.0
LEAST_EARLIER = 1.2
GROWTH_LIMIT_KB = 50.0

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)")
FAST, FULL = "fast", "full"


@dataclass
class Taken:
    """All that a run took; `report` makes figures of it."""

    engine: str = ""
    heard: defaultdict[tuple[str, str], list[Heard]] = field(default_factory=lambda: defaultdict(list))
    live: dict[str, Heard] = field(default_factory=dict)
    first_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seams: list[Seam] = field(default_factory=list)
    words: defaultdict[str, WordErrors] = field(default_factory=lambda: defaultdict(lambda: WordErrors(0, 0)))
    answers: int = 0
    memory_bytes: list[float] = field(default_factory=list)  # after each round of the stress run
    errors: list[str] = field(default_factory=list)

    def first(self, case: str, mode: str) -> Samples:
        return self.heard[case, mode][0].samples

    @property
    def audio(self) -> dict[str, Samples]:
        """By name of a file."""
        return {f"{case}-{mode}": takes[0].samples for (case, mode), takes in self.heard.items()}


async def take(runs: int, answers: int, rounds: int, on_step: Callable[[int], None]) -> Taken:
    """On workers of its own; `on_step` is called `steps` times. Raises StepFailed or Unavailable."""
    taken = Taken()
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    with tempfile.TemporaryDirectory(prefix="callbox-bench-") as place, RedisServer(Path(place)) as redis:
        folder = Path(place)
        given = {"slots": 1, "direct_slots": AT_ONCE}
        async with Worker("tts", redis.url, folder, **given) as worker, aiohttp.ClientSession(timeout=timeout) as http:
            speaker = Speaker(worker, http)
            taken.engine = (await worker.health(http))["model"]
            for _ in range(runs):
                await _say_cases(speaker, taken)
                on_step(1)
            for case, text in CASES.items():
                taken.live[case] = await speaker.live(text)
            spoken: list[tuple[str, Heard, Heard]] = []
            for answer in ANSWERS[:answers]:
                spoken.append((answer, await speaker.live(answer, WORDS_PER_S), await speaker.file(answer)))
                taken.answers += 1
                await _time_first_sounds(speaker, answer, spoken[-1][1], taken)
                on_step(1)
            await _stress(speaker, taken, rounds, on_step)
        async with Worker("stt", redis.url, folder, **given) as ear, aiohttp.ClientSession(timeout=timeout) as http:
            for answer, joined, whole in spoken:
                taken.words["joined"] += WordErrors.between(answer, await _recognised(ear, http, joined.samples))
                taken.words["whole"] += WordErrors.between(answer, await _recognised(ear, http, whole.samples))
                on_step(1)
    for _, joined, whole in spoken:
        taken.seams += seams(joined.samples, joined.segments, whole.samples)
    for case in CASES:
        taken.seams += seams(taken.live[case].samples, taken.live[case].segments, taken.first(case, FULL))
    return taken


def steps(runs: int, answers: int, rounds: int) -> int:
    return runs + 2 * answers + rounds


async def _say_cases(speaker: Speaker, taken: Taken) -> None:
    for case, text in CASES.items():
        taken.heard[case, FAST].append(await speaker.stream(text))
        taken.heard[case, FULL].append(await speaker.file(text))


async def _time_first_sounds(speaker: Speaker, answer: str, joined: Heard, taken: Taken) -> None:
    """While it is written, and by a client that waits for the first sentence's end and has that said whole."""
    sentence = _SENTENCE.match(answer)
    text = sentence[0] if sentence else answer
    await asyncio.sleep((len(text.split()) - 1) / WORDS_PER_S)
    whole = await speaker.file(text)
    taken.first_ms["first words, while they are written"].append(joined.first_ms)
    written_ms = (len(text.split()) - 1) * 1000 / WORDS_PER_S
    taken.first_ms["first sentence, when it is written"].append(written_ms + whole.first_ms)


async def _stress(speaker: Speaker, taken: Taken, rounds: int, on_step: Callable[[int], None]) -> None:
    """Texts by chance, of which half are left in the middle, AT_ONCE at a time; then nothing may be left to do."""
    dice = random.Random(6)  # noqa: S311 - the same rounds in each run
    texts = list(CASES.values())

    async def round_() -> None:
        text, stays = dice.choice(texts), dice.random() < 0.5
        try:
            if stays:
                heard = await speaker.live(text)
                if wrong := waves.broken(heard.samples):
                    taken.errors.append(f"{wrong}: {text[:40]}")
            else:
                await speaker.abandon(text, dice)
        except (StepFailed, aiohttp.ClientError, TimeoutError) as error:
            taken.errors.append(repr(error))

    for _ in range(0, rounds, AT_ONCE):
        await asyncio.gather(*(round_() for _ in range(AT_ONCE)))
        await speaker.worker.until_idle(speaker.http)
        metrics = await metrics_at(speaker.http, speaker.worker.health_url)
        taken.memory_bytes.append(metrics["process_resident_memory_bytes", ()])
        on_step(AT_ONCE)


async def _recognised(ear: Worker, http: aiohttp.ClientSession, samples: Samples) -> str:
    return await recognise(http, ear.url, Pcm(samples, TTS_RATE_HZ))


def report(taken: Taken, kept: Golden | None) -> Report:
    samples: dict[str, Summary] = {}
    counts: dict[str, int | float] = {}
    for (case, mode), takes in taken.heard.items():
        samples[f"{case}, {mode}: first audio"] = Summary.of(heard.first_ms for heard in takes)
        rtf = Summary.of(heard.rtf or 0.0 for heard in takes)
        counts[f"{case}, {mode}: RTF P50"] = rtf.median
        counts[f"{case}, {mode}: RTF {'P95' if rtf.p95 is not None else 'max'}"] = rtf.p95_or_max
    fast_ms = Summary.of(heard.first_ms for (_, mode), takes in taken.heard.items() if mode == FAST for heard in takes)
    samples |= {"all cases, fast: first audio": fast_ms}
    samples |= {f"at {WORDS_PER_S:g} words/s, {name}": Summary.of(ms) for name, ms in taken.first_ms.items()}
    early, late = (Summary.of(ms).median for ms in taken.first_ms.values())
    joined_pct, whole_pct = (100 * taken.words[name].rate for name in ("joined", "whole"))
    counts |= {
        "seams": len(taken.seams),
        "of which found again in the whole sentence": sum(not np.isnan(seam.level_db) for seam in taken.seams),
        "seams: pause against the whole, median": median_size(taken.seams, lambda seam: seam.pause_ms),
        "seams: fall of pitch before, median": median_size(taken.seams, lambda seam: seam.fall),
        f"seams: SNR of what follows at least {LEAST_SNR_DB:g} dB, of all": _share(taken.seams),
        "words wrong, joined": joined_pct,
        "words wrong, whole": whole_pct,
        "rounds of stress": len(taken.memory_bytes) * AT_ONCE,
    }
    return Report(
        "tts: what it says, how soon and how fast",
        facts={
            "engine": taken.engine,
            "runs": len(next(iter(taken.heard.values()))),
            "answers": taken.answers,
            "golden": f"of {kept.made['at']} on {kept.made['machine']}" if kept else "none; --set-golden makes it",
            **golden.versions(),
        },
        samples=samples,
        counts=counts,
        ratios={"first sentence to first words": late / early},
        bounds=[
            Bound("different audio of one text", max(map(_different, taken.heard.values())), 1, "kinds"),
            *golden_bounds(taken, kept),
            Bound("first audio, fast, P95", fast_ms.p95_or_max, FIRST_AUDIO_LIMIT_MS, "ms"),
            Bound("duration written word by word, against all at once", _duration_ms(taken), DURATION_LIMIT_MS, "ms"),
            Bound("duration in pieces, against whole sentences", _pace_pct(taken), PACE_LIMIT_PCT, "%"),
            Bound("segments said twice", _repeated(taken), 0),
            Bound("audio that is broken", sum(bool(waves.broken(audio)) for audio in taken.audio.values()), 0),
            Bound("loudest click at a seam, of what is usual", _largest(taken.seams), CLICK_LIMIT, "times"),
            Bound("step in level at a seam, median", median_size(taken.seams, _level), LEVEL_LIMIT_DB, "dB"),
            Bound("jump of pitch at a seam, median", median_size(taken.seams, _jump), JUMP_LIMIT, "semitones"),
            Bound("words misheard more than when whole", joined_pct - whole_pct, WORSE_WORDS_LIMIT_PCT, "%"),
            Bound("first words before the first sentence", late / early, LEAST_EARLIER, "times", "at least"),
            Bound("errors under stress", len(taken.errors), 0),
            *_memory_bounds(taken),
        ],
    )


def _memory_bounds(taken: Taken) -> list[Bound]:
    """None after few rounds: an allocator's first steps look like growth."""
    if len(taken.memory_bytes) * AT_ONCE < ROUNDS_THAT_TELL:
        return []
    return [Bound("growth of memory a round of stress", growth_kb(taken.memory_bytes), GROWTH_LIMIT_KB, "KB")]


def growth_kb(memory_bytes: list[float]) -> float:
    """A round of stress, of those after the warm ones."""
    settled = memory_bytes[round(len(memory_bytes) * WARM_SHARE) :]
    if len(settled) < 2:
        return float("nan")
    return Slope.of([(index * AT_ONCE, size) for index, size in enumerate(settled)]).median / 1024


def golden_bounds(taken: Taken, kept: Golden | None) -> list[Bound]:
    if kept is None:
        return []
    found = {name: waves.snr_db(audio, kept.audio[name]) for name, audio in taken.audio.items() if name in kept.audio}
    return [
        Bound(
            "SNR to the golden audio, least", min(found.values(), default=float("nan")), LEAST_SNR_DB, "dB", "at least"
        ),
        Bound("texts without golden audio", len(taken.audio) - len(found), 0),
    ]


def _different(takes: list[Heard]) -> int:
    return len({hashlib.sha256(heard.samples.tobytes()).digest() for heard in takes})


def _duration_ms(taken: Taken) -> float:
    return max(abs(heard.duration_ms - taken.heard[case, FAST][0].duration_ms) for case, heard in taken.live.items())


def _pace_pct(taken: Taken) -> float:
    lengths = [(len(taken.first(case, FAST)), len(taken.first(case, FULL))) for case in CASES]
    return max(abs(fast - full) / full * 100 for fast, full in lengths)


def _repeated(taken: Taken) -> int:
    """Segments that are there twice, in the words that the worker names or in what is heard."""
    count = 0
    for case, heard in taken.live.items():
        said = " ".join(segment.text for segment in heard.segments if segment.text)
        count += said.split() != CASES[case].split()
        ends = [*(segment.from_sample for segment in heard.segments), len(heard.samples)]
        for begin, middle, end in zip(ends, ends[1:], ends[2:], strict=False):
            count += waves.is_repeated(heard.samples, begin, middle, end)
    return count


def _share(found: list[Seam]) -> float:
    return sum(seam.snr_db >= LEAST_SNR_DB for seam in found) / max(1, len(found))


def _largest(found: list[Seam]) -> float:
    return max((seam.click for seam in found), default=0.0)


def _level(seam: Seam) -> float:
    return seam.level_db


def _jump(seam: Seam) -> float:
    return seam.jump

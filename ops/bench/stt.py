"""What transcription costs: time by length, beside partials, two at once, after a close; and how often it errs."""

import asyncio
import contextlib
import io
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np

from daemons import wire
from daemons.audio import STT_RATE_HZ, Pcm, Samples, read_wav, wav_bytes
from ops.figures import Bound, Report, Summary
from ops.redis_server import RedisServer
from ops.run import StepFailed
from ops.words import WordErrors
from ops.worker import Worker

LENGTHS_S = (1, 2, 4, 8)
PARTIALS_S = 4
CHUNK_SAMPLES = STT_RATE_HZ // 50
REPEATS_OF_LONG = 4
TIMEOUT_S = 120.0
RTF_LIMIT = 0.5  # of 8 s; 0.03 on a quiet core
WER_LIMIT = 0.08
PARTIALS_COST_LIMIT = 1.5
STOP_LIMIT_MS = 500.0
CLIPS = Path("/usr/share/pocketsphinx/test/data/librivox")
INSTALL = "apt install pocketsphinx-testdata"


class Clip(NamedTuple):
    samples: Samples
    words: str


def clips(folder: Path) -> list[Clip]:
    """The WAV files of `folder` whose words stand in its file `transcription` (`<s> WORDS </s> (NAME)`).

    Raises StepFailed when they are not there.
    """
    if not (folder / "transcription").exists():
        raise StepFailed(f"{folder} holds no recorded speech: {INSTALL}, or name such a folder with --speech")
    lines = (folder / "transcription").read_text(encoding="utf-8")
    found = re.findall(r"^<s> (.*) </s> \((.*)\)$", lines, re.MULTILINE)
    return [Clip(read_wav(folder / f"{name}.wav").resampled(STT_RATE_HZ).samples, words) for words, name in found]


class Speaker:
    """Speaks to one worker."""

    def __init__(self, worker: Worker, http: aiohttp.ClientSession) -> None:
        self.worker = worker
        self.http = http

    async def text_of(self, clip: Clip) -> str:
        async with self._uploading(clip.samples) as response:
            answer = await response.json()
            if response.status != 200:
                raise StepFailed(f"the worker answered {response.status}: {answer}")
            return str(answer["text"])

    async def commit_ms(self, samples: Samples) -> float:
        """From the commit of what has been sent to its text."""
        async with self._live(partials=False) as socket:
            await socket.send_bytes(samples.tobytes())
            return await _commit_ms(socket)

    async def beside_partials_ms(self, samples: Samples, pause_s: float, *, partials: bool) -> float:
        """From the commit to its text.

        All but the last of the samples come at once, so that a partial begins; the commit comes `pause_s` later.
        """
        async with self._live(partials=partials) as socket:
            await socket.send_bytes(samples[:-CHUNK_SAMPLES].tobytes())
            await asyncio.sleep(pause_s)
            await socket.send_bytes(samples[-CHUNK_SAMPLES:].tobytes())
            return await _commit_ms(socket)

    async def partial_ms(self, samples: Samples) -> float:
        """From audio that is due for a partial to the partial."""
        async with self._live(partials=True) as socket:
            began_s = time.perf_counter()
            await socket.send_bytes(samples.tobytes())
            await socket.receive_str(timeout=TIMEOUT_S)
            return (time.perf_counter() - began_s) * 1000

    async def stopped_after_ms(self, samples: Samples, *, live: bool) -> float:
        """From a client's close to the end of its work."""
        if live:
            async with self._live(partials=False) as socket:
                await socket.send_bytes(samples.tobytes())
                await socket.send_str(wire.SttCommit(id=1).model_dump_json())
                await self._until_busy()
                closed_s = time.perf_counter()
        else:
            uploading = asyncio.create_task(self._upload(samples))
            await self._until_busy()
            closed_s = time.perf_counter()
            uploading.cancel()
            await asyncio.wait([uploading])
        await self.worker.until_idle(self.http)
        return (time.perf_counter() - closed_s) * 1000

    async def _until_busy(self) -> None:
        while True:
            if (await self.worker.health(self.http))["in_flight"]:
                break
        await asyncio.sleep(random.uniform(0.0, 0.1))  # noqa: S311 - no secret

    async def _upload(self, samples: Samples) -> None:
        async with self._uploading(samples) as response:
            await response.read()

    @contextlib.asynccontextmanager
    async def _uploading(self, samples: Samples) -> AsyncIterator[aiohttp.ClientResponse]:
        form = aiohttp.FormData()
        form.add_field("model", "whisper-1")
        file = io.BytesIO(wav_bytes(Pcm(samples, STT_RATE_HZ)))
        form.add_field("file", file, filename="speech.wav", content_type="audio/wav")
        async with self.http.post(f"{self.worker.url}/v1/audio/transcriptions", data=form) as response:
            yield response

    @contextlib.asynccontextmanager
    async def _live(self, *, partials: bool) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A connection with an open utterance."""
        async with self.http.ws_connect(f"{self.worker.url}/stt/live") as socket:
            await socket.send_str(wire.SttStart(utterance=1, partials=partials).model_dump_json())
            yield socket


async def _commit_ms(socket: aiohttp.ClientWebSocketResponse) -> float:
    began_s = time.perf_counter()
    await socket.send_str(wire.SttCommit(id=1).model_dump_json())
    while True:
        reply = wire.stt_reply.validate_json(await socket.receive_str(timeout=TIMEOUT_S))
        if isinstance(reply, wire.StreamError):
            raise StepFailed(f"the worker ended a commit: {reply.message}")
        if isinstance(reply, wire.SttFinal):
            return (time.perf_counter() - began_s) * 1000


async def measure(rounds: int, folder: Path, on_round: Callable[[int], None]) -> Report:
    """On a worker of its own. Raises StepFailed."""
    spoken = clips(folder)
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    with tempfile.TemporaryDirectory(prefix="callbox-bench-") as place, RedisServer(Path(place)) as redis:
        worker = Worker("stt", redis.url, Path(place), slots=1, direct_slots=2)
        async with worker, aiohttp.ClientSession(timeout=timeout) as http:
            run = _Run(Speaker(worker, http), spoken)
            for number in range(rounds):
                await run.round(number)
                on_round(1)
            errors = await run.errors()
            model = str((await worker.health(http))["model"])
    return run.report(model, rounds, errors)


class _Run:
    """Every round takes each figure once, so that whatever slows the machine down slows them all."""

    def __init__(self, speaker: Speaker, spoken: list[Clip]) -> None:
        self._speaker = speaker
        self._spoken = spoken
        self._all = np.concatenate([clip.samples for clip in spoken])
        self._ms: defaultdict[str, list[float]] = defaultdict(list)

    async def round(self, number: int) -> None:
        speaker = self._speaker
        for seconds in LENGTHS_S:
            self._ms[f"{seconds} s of audio"].append(await speaker.commit_ms(self._cut(seconds, number)))
        samples = self._cut(PARTIALS_S, number)
        pause_s = random.uniform(0.0, 0.15)  # noqa: S311 - no secret
        orders = (False, True) if number % 2 else (True, False)
        for partials in orders:
            took_ms = await speaker.beside_partials_ms(samples, pause_s, partials=partials)
            self._ms[f"{PARTIALS_S} s, partials {'on' if partials else 'off'}"].append(took_ms)
        self._ms[f"a partial of {PARTIALS_S} s"].append(await speaker.partial_ms(samples))
        two = (speaker.commit_ms(samples), speaker.commit_ms(samples))
        self._ms[f"{PARTIALS_S} s, two at once"] += await asyncio.gather(*two)
        long = np.concatenate([self._all] * REPEATS_OF_LONG)
        for name, live in (("file", False), ("commit", True)):
            given = self._cut(LENGTHS_S[-1], number) if live else long
            self._ms[f"client closed → work stopped, a {name}"].append(await speaker.stopped_after_ms(given, live=live))

    async def errors(self) -> WordErrors:
        total = WordErrors(0, 0)
        for clip in self._spoken:
            total += WordErrors.between(clip.words, await self._speaker.text_of(clip))
        return total

    def _cut(self, seconds: int, number: int) -> Samples:
        """Other speech in each round: it walks through the clips."""
        length = seconds * STT_RATE_HZ
        at = number * STT_RATE_HZ * 3 // 2 % (len(self._all) - length)
        return self._all[at : at + length]

    def report(self, model: str, rounds: int, errors: WordErrors) -> Report:
        samples = {name: Summary.of(ms) for name, ms in self._ms.items()}
        rtf = {seconds: samples[f"{seconds} s of audio"].median / 1000 / seconds for seconds in LENGTHS_S}
        off, on = (samples[f"{PARTIALS_S} s, partials {how}"].median for how in ("off", "on"))
        two = samples[f"{PARTIALS_S} s, two at once"].median
        stops = [name for name in samples if "work stopped" in name]
        return Report(
            "stt: time by length, partials, two at once, cancels and errors",
            facts={"model": model, "rounds": rounds, "clips": len(self._spoken), "words": errors.words},
            samples=samples,
            counts={f"RTF of {seconds} s (median)": share for seconds, share in rtf.items()}
            | {"word errors": errors.errors, "word error rate": errors.rate},
            ratios={"a commit with partials to one without": on / off, "two at once to one": two / off},
            bounds=[
                Bound("word error rate", errors.rate, WER_LIMIT),
                Bound(f"RTF of {LENGTHS_S[-1]} s (median)", rtf[LENGTHS_S[-1]], RTF_LIMIT),
                Bound("a commit with partials to one without", on / off, PARTIALS_COST_LIMIT, "times"),
                *(Bound(name, samples[name].p95_or_max, STOP_LIMIT_MS, "ms") for name in stops),
            ],
        )

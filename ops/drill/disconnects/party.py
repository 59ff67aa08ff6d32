"""A worker of the drill, and what clients say at its doors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Pcm, Samples
from daemons.wire import Role
from ops.drill.disconnects.doors import Door, llm_doors, stt_doors, tts_doors
from ops.drill.disconnects.watch import Watch
from ops.run import StepFailed
from ops.worker import Worker

TALE = (
    "Once upon a time there was a village at the edge of a wide forest, and in it lived a baker who was never on time. "
    "Every morning the bells rang at six, and every morning the ovens were still cold when the first people came. "
    "One day a traveller came by, who carried a clock that had no hands and only one bell. "
    "She gave it to the baker and said that it would ring whenever somebody was hungry. "
)
TALES_BEGIN = TALE[:200]  # about 12 s; /stream runs 10 s ahead of its listener
LONG_TALE = (TALE * 12)[:4000]
STORY = "Tell a long story about a dragon who lives near a village."
ANSWER_TOKENS = 16
LONG_ANSWER_TOKENS = 160
LONG_WORDS = 400
HEARD_S = 8
LONG_HEARD_S = 29  # /stt/live takes 30
LONG_FILE_S = 300

Ask = Callable[[int], Door]


@dataclass(frozen=True, slots=True)
class Party:
    """`busy` are doors and asks that keep the engine at work for long, by name; the number is for texts that differ.

    `alone` is the gist of what each door answers a client who is alone, by the door's name.
    """

    watch: Watch
    doors: Sequence[Door]
    busy: Mapping[str, Ask]
    alone: dict[str, str] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        return self.doors[0].role

    @property
    def worker(self) -> Worker:
        return self.watch.worker


async def parties(workers: Mapping[Role, Worker], http: aiohttp.ClientSession) -> list[Party]:
    """The tts worker must be among them where the stt worker is, which hears what it says. Raises StepFailed."""
    speech = await _said(workers["tts"], http) if "stt" in workers else np.zeros(0, np.int16)
    return [
        Party(await Watch.on(worker, http), doors_of(role, speech), busy_of(role, speech))
        for role, worker in workers.items()
    ]


def doors_of(role: Role, speech: Samples) -> list[Door]:
    """`speech`: int16 [n] at 16 kHz, of which an stt worker hears the first HEARD_S."""
    if role == "tts":
        return tts_doors(TALE, TALES_BEGIN)
    if role == "llm":
        return llm_doors(STORY, ANSWER_TOKENS)
    return stt_doors(speech[: HEARD_S * STT_RATE_HZ])


def busy_of(role: Role, speech: Samples) -> dict[str, Ask]:
    if role == "tts":
        return _always(tts_doors(LONG_TALE, LONG_TALE))
    if role == "llm":
        return {"llm, reading": _read, "llm, writing": _write}
    long = np.resize(speech, LONG_FILE_S * STT_RATE_HZ)
    file, _, live = stt_doors(long, live_samples=long[: LONG_HEARD_S * STT_RATE_HZ])
    return _always([file, live])


def _always(doors: Sequence[Door]) -> dict[str, Ask]:
    def same(door: Door) -> Ask:
        return lambda _: door

    return {door.name: same(door) for door in doors}


def _read(number: int) -> Door:
    """No two begin alike, so nothing of them is in a cache."""
    return llm_doors(f"{number} {'word ' * LONG_WORDS}", 1)[1]


def _write(number: int) -> Door:
    return llm_doors(f"{number}. {STORY}", LONG_ANSWER_TOKENS)[0]


async def _said(worker: Worker, http: aiohttp.ClientSession) -> Samples:
    """The tale, int16 [n] at 16 kHz."""
    async with http.post(f"{worker.url}/tts/stream", json={"text": TALE}) as answer:
        if answer.status != 200:
            raise StepFailed(f"the tts worker answered {answer.status}: {await answer.text()}")
        samples = np.frombuffer(await answer.read(), np.int16)
    return Pcm(samples, TTS_RATE_HZ).resampled(STT_RATE_HZ).samples

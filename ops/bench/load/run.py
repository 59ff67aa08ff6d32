"""The load bench from its first step to its report."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import aiohttp
import numpy as np
import psutil

from daemons.audio import Pcm, level_dbfs, wav_bytes
from daemons.registry import connect
from ops.bench.load.robots import longest_gap_ms
from ops.bench.load.scripted import ANSWER, QUESTION, ROLES
from ops.bench.load.steps import Step, next_calls, step
from ops.bench.turns import SMALL_MODEL
from ops.caller import synthesize
from ops.private_box import PrivateBox
from ops.programs import processes_of
from ops.robot import AUDIBLE_DBFS, RATE_HZ, Heard
from ops.run import StepFailed
from ops.worker import Worker

MOST_ALONE = 64  # as many slots as a worker may have
MOST_WHOLE = 16
FREE_S = 60.0
POLL_S = 0.25
WORD_DBFS = AUDIBLE_DBFS + 15  # what is softer in an answer could be taken for a gap after its way through a codec
SCRIPTED_TOKENS = 512  # of context in the model that nobody asks

MOST_STEPS = 20  # of both: doubled as often as there is room, then halved

Programs = Mapping[str, Sequence[psutil.Process]]


class Box(StrEnum):
    AGENT_ALONE = "agent"  # with workers that answer from a script
    WHOLE = "whole"


@dataclass(slots=True)
class Climb:
    """The steps that a box was put through, in their order."""

    steps: list[Step] = field(default_factory=list)

    @property
    def carried(self) -> int:
        return max((one.calls for one in self.steps if not one.gave_way()), default=0)

    @property
    def gave_way(self) -> Step | None:
        """The smallest step that missed a gate."""
        return min((one for one in self.steps if one.gave_way()), key=lambda one: one.calls, default=None)


async def climbs(
    seconds: float, *, only: Box | None, llm_model: str, on_step: Callable[[int], None]
) -> dict[Box, Climb]:
    """Raises StepFailed when a box does not come up, or holds calls that are over."""
    taken = {}
    if only is not Box.WHOLE:
        taken[Box.AGENT_ALONE] = await agent_alone(seconds, most=MOST_ALONE, on_step=on_step)
    if only is not Box.AGENT_ALONE:
        taken[Box.WHOLE] = await whole_box(seconds, most=MOST_WHOLE, llm_model=llm_model, on_step=on_step)
    return taken


async def agent_alone(seconds: float, *, most: int, on_step: Callable[[int], None]) -> Climb:
    """Up to `most` calls at once to a box whose speech and chat workers cost next to nothing.

    Raises StepFailed, Unavailable.
    """
    with PrivateBox(slots=most, llm_model=SMALL_MODEL, llm_context_tokens=SCRIPTED_TOKENS) as box:
        return await climb_without_workers(box, seconds, most=most, on_step=on_step)


async def climb_without_workers(box: PrivateBox, seconds: float, *, most: int, on_step: Callable[[int], None]) -> Climb:
    """Stops the box's own speech and chat workers, for good, and puts scripted ones in their place."""
    question = await _kept(box, QUESTION, "question.wav")
    answer = await _kept(box, ANSWER, "answer.wav", pauses=False)
    box.supervisorctl("stop", *ROLES)
    async with _scripted(box, answer, slots=most) as scripted:
        programs = {**processes_of(box.settings), **scripted}
        return await _climb(box, question, seconds, most, programs, on_step)


async def whole_box(seconds: float, *, most: int, llm_model: str, on_step: Callable[[int], None]) -> Climb:
    """Up to `most` calls at once to a box with its own workers. Raises StepFailed, Unavailable."""
    with PrivateBox(slots=most, llm_model=llm_model) as box:
        box.write_persona(max_sentences=1)
        question = await _kept(box, QUESTION, "question.wav")
        programs = processes_of(box.settings)
        return await _climb(box, question, seconds, most, programs, on_step, has_pauses=True)


async def _climb(
    box: PrivateBox,
    question: Path,
    seconds: float,
    most: int,
    programs: Programs,
    on_step: Callable[[int], None],
    *,
    has_pauses: bool = False,
) -> Climb:
    """`has_pauses`: the answers have pauses of their own, which are no gaps."""
    climb, carried, too_many = Climb(), 0, None
    pauses_ms: dict[str, float] = {}
    while (calls := next_calls(carried, too_many, most)) is not None:
        done = await step(calls, seconds, door_url=box.settings.door_url, question=question, programs=programs)
        if has_pauses:
            for words in {answer.text for answer in done.answers if answer.text} - set(pauses_ms):
                pauses_ms[words] = _pause_ms((await synthesize(box.settings, words)).pcm)
            done = replace(done, pauses_ms=pauses_ms)
        climb.steps.append(done)
        if done.gave_way():
            too_many = calls
        else:
            carried = calls
        await _until_free(box)
        on_step(1)
    return climb


async def _until_free(box: PrivateBox) -> None:
    """Raises StepFailed when calls of a step are still held long after it."""
    registry, deadline = connect(box.settings.redis), time.monotonic() + FREE_S
    try:
        while held := (await registry.snapshot()).calls:
            if time.monotonic() > deadline:
                raise StepFailed(f"{len(held)} calls are still held {FREE_S:g} s after a step")
            await asyncio.sleep(POLL_S)
    finally:
        await registry.close()


async def _kept(box: PrivateBox, words: str, name: str, *, pauses: bool = True) -> Path:
    """A WAV file of `words` in the box's own voice."""
    pcm = (await synthesize(box.settings, words)).pcm
    path = box.var_dir / name
    path.write_bytes(wav_bytes(pcm if pauses else without_pauses(pcm)))
    return path


def without_pauses(pcm: Pcm) -> Pcm:
    """Only its 10 ms that are surely audible: whatever silence is heard in it then, is none of its own."""
    step = pcm.rate_hz // 100
    parts = [pcm.samples[at : at + step] for at in range(0, len(pcm.samples) - step + 1, step)]
    return Pcm(np.concatenate([part for part in parts if level_dbfs(part) > WORD_DBFS]), pcm.rate_hz)


def _pause_ms(pcm: Pcm) -> float:
    """The longest inside it."""
    heard = Heard()
    heard.add(pcm.resampled(RATE_HZ).samples, at_ns=round(pcm.duration_ms * 1e6))
    return longest_gap_ms(heard, 0, round(pcm.duration_ms * 1e6))


@asynccontextmanager
async def _scripted(box: PrivateBox, answer: Path, slots: int) -> AsyncIterator[Programs]:
    """Workers that answer from a script, in the registry of a box without its own; their processes by role."""
    module = "ops.bench.load.scripted"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        found = {}
        for role in ROLES:
            worker = Worker(role, box.settings.redis, box.var_dir, (module, role, str(answer)), slots=slots)
            await stack.enter_async_context(worker)
            found[role] = [psutil.Process((await worker.health(http))["pid"])]
        yield found

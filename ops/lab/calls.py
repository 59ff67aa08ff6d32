"""Calls that the lab dials: of each turn what was said as the speech worker made it, and as the caller heard it."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from daemons import wire
from daemons.audio import STT_RATE_HZ, Pcm, read_wav
from daemons.errors import AtCapacity, Unavailable, in_words
from daemons.settings import Settings
from ops.caller import (
    GREETING_TIMEOUT_S,
    TAIL_NS,
    Turn,
    Utterance,
    ask,
    being_answered,
    hear_out,
    recognise,
    speech_start_ns,
)
from ops.lab import live
from ops.lab.callers import Voice
from ops.lab.cases import Case, Line, Over
from ops.lab.playlog import as_played
from ops.robot import Reception, Robot, dial, happened

BEFORE_NS = 300_000_000  # of the recording, since a first frame is heard no sooner than it is published
TRIES = 2


@dataclass(frozen=True, slots=True)
class Interruption:
    """A sound over an answer, `at_s` after its beginning, and what came of it.

    `silence_ms`: from its onset until nothing was heard; None where the answer went on.
    """

    sound: Pcm
    at_s: float
    wanted: bool
    in_time: bool  # the answer was not over by then
    ended: bool
    held: bool  # for a moment
    silence_ms: float | None
    cancel_ms: float | None  # the agent's decision → its last frame


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """`asked` is what the caller said, `heard` what came to them meanwhile.

    `said` is what left the speech worker, as it was played; None where it kept nothing. `has` are words of which the
    answer must hold one. `interruption` is what was done to it, if anything. `words` are what the box's own speech
    recognition makes of `heard`.
    """

    name: str
    call: str
    case: Case
    turn: Turn
    has: tuple[str, ...]
    asked: Pcm
    said: Pcm | None
    heard: Pcm
    interruption: Interruption | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    case: Case
    turns: list[RecordedTurn]
    reception: Reception
    spoken_unasked: int  # times that the agent began to speak while the caller wanted quiet


@dataclass(frozen=True, slots=True)
class Dialled:
    """A case's calls, and what went wrong each time that they were tried in vain."""

    case: Case
    calls: list[Call]
    failures: list[str]


async def dial_case(settings: Settings, voice: Voice, label: str = "") -> Dialled:
    """Tried again once when a call breaks. `label` tells its turns from others of the same case.

    Raises Unavailable or StepFailed when a worker is not there that is wanted besides.
    """
    case = voice.case
    failures: list[str] = []
    for _ in range(TRIES):
        try:
            async with asyncio.TaskGroup() as tasks:
                names = [""] if case.calls == 1 else [f"-{letter}" for letter in "abcdefgh"[: case.calls]]
                calls = [tasks.create_task(_call(settings, f"{case.name}{label}{name}", voice)) for name in names]
        except* (AtCapacity, Unavailable, TimeoutError) as broken:
            failures += [in_words(error) for error in broken.exceptions]
        else:
            return Dialled(case, [await _with_words(settings, call.result()) for call in calls], failures)
    return Dialled(case, [], failures)


async def _call(settings: Settings, name: str, voice: Voice) -> Call:
    case = voice.case
    key = settings.operator_key.get_secret_value()
    async with (
        live.speaking(settings, case.fault) as tts,
        dial(settings.door_url, record=True, tts=tts, access_key=key) as robot,
    ):
        if len(noise := voice.noise):
            robot.surround(noise)
        await robot.event(happened("reply_heard"), GREETING_TIMEOUT_S)
        recorder = _Recorder(settings, case, name, robot)
        spoken_unasked = 0
        for line in case.lines:
            await asyncio.sleep(TAIL_NS / 1e9)
            await _converse(recorder, line, voice)
            spoken_unasked += await _stay_quiet(robot, line.quiet_s or 0.0)
        return Call(case, recorder.turns, await robot.reception(), spoken_unasked)


async def _converse(recorder: "_Recorder", line: Line, voice: Voice) -> None:
    robot = recorder.robot
    question = voice.says(line.say)
    asked = await ask(robot, question)
    if (over := line.over) is None:
        await recorder.take(question, await hear_out(robot, asked), line.has)
        return
    await asyncio.sleep(over.at_s)
    utterance = voice.says(over.say)
    began_ns = await robot.say(utterance.pcm)
    turn = await hear_out(robot, asked)
    await recorder.take(question, turn, line.has, _what_came_of(robot, over, utterance, turn, began_ns))
    if over.yields:
        await recorder.take(
            utterance, await hear_out(robot, await being_answered(robot, utterance, began_ns)), over.has
        )


def _what_came_of(robot: Robot, over: Over, utterance: Utterance, turn: Turn, began_ns: int) -> Interruption:
    onset_ns = began_ns + speech_start_ns(utterance.pcm)
    at = {event["event"]: event["t_ns"] for event in turn.events}
    silent_ns = robot.heard.silent_ns(onset_ns, turn.answer_to_ns) if turn.interrupted else None
    cancelled_ns, last_ns = at.get("cancel_requested"), at.get("last_frame_published")
    return Interruption(
        sound=utterance.pcm,
        at_s=over.at_s,
        wanted=over.yields,
        in_time=onset_ns < turn.answer_to_ns - TAIL_NS,
        ended=turn.interrupted,
        held="playout_held" in at,
        silence_ms=None if silent_ns is None else (silent_ns - onset_ns) / 1e6,
        cancel_ms=None if cancelled_ns is None or last_ns is None else (last_ns - cancelled_ns) / 1e6,
    )


async def _stay_quiet(robot: Robot, seconds: float) -> int:
    """Returns how often the agent spoke all the same."""
    before = _answers(robot.events)
    await asyncio.sleep(seconds)
    return _answers(robot.events) - before


def _answers(events: list[dict[str, Any]]) -> int:
    return sum(event["event"] == "first_frame_published" for event in events)


@dataclass(slots=True)
class _Recorder:
    """The turns of one call, as they come."""

    settings: Settings
    case: Case
    name: str
    robot: Robot
    turns: list[RecordedTurn] = field(default_factory=list)

    async def take(
        self, asked: Utterance, turn: Turn, has: tuple[str, ...], interruption: Interruption | None = None
    ) -> None:
        """Raises Unavailable."""
        made = await _as_made(self.settings, wire.recording_of(self.robot.call_id, turn.generation))
        self.turns.append(
            RecordedTurn(
                f"{self.name}-{len(self.turns) + 1}",
                self.name,
                self.case,
                turn,
                has,
                asked.pcm,
                None if made is None else as_played(made, turn.events),
                self.robot.heard.between(turn.answer_from_ns - BEFORE_NS, turn.answer_to_ns),
                interruption,
            )
        )


async def _with_words(settings: Settings, call: Call) -> Call:
    url = f"http://127.0.0.1:{settings.stt_port}"
    async with aiohttp.ClientSession() as session:
        turns = [
            replace(turn, words=await recognise(session, url, turn.heard.resampled(STT_RATE_HZ))) for turn in call.turns
        ]
    return replace(call, turns=turns)


async def _as_made(settings: Settings, trace: str) -> Pcm | None:
    url = f"http://127.0.0.1:{settings.tts_port}/tts/traces/{trace}.wav"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return read_wav(await answer.read()) if answer.status == 200 else None
    except aiohttp.ClientError as error:
        raise Unavailable(f"the TTS worker does not answer: {error}") from error

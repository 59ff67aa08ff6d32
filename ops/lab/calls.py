"""Calls that the lab dials: what was said in each turn as the speech worker made it, and as the caller heard it."""

from dataclasses import dataclass

import aiohttp

from daemons import wire
from daemons.audio import Pcm, read_wav
from daemons.errors import Unavailable
from daemons.settings import Settings
from ops.caller import Turn, synthesize, talk
from ops.lab import live
from ops.lab.cases import Case
from ops.robot import dial

BEFORE_NS = 300_000_000  # of the recording, since a first frame is heard no sooner than it is published


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """`said` is what left the speech worker, None where it kept nothing; `heard` what came to the caller meanwhile."""

    case: Case
    number: int
    turn: Turn
    said: Pcm | None
    heard: Pcm

    @property
    def name(self) -> str:
        return f"{self.case.name}-{self.number}"


async def dial_case(settings: Settings, case: Case) -> list[RecordedTurn]:
    """Raises StepFailed, Unavailable or TimeoutError when the call fails."""
    spoken = [await synthesize(settings, words) for words in case.say]
    key = settings.operator_key.get_secret_value()
    async with (
        live.speaking(settings, case.fault) as tts,
        dial(settings.door_url, record=True, tts=tts, access_key=key) as robot,
    ):
        report = await talk(robot, spoken)
        return [
            RecordedTurn(
                case,
                number,
                turn,
                await _as_made(settings, wire.recording_of(robot.call_id, turn.generation)),
                robot.heard.between(turn.answer_from_ns - BEFORE_NS, turn.answer_to_ns),
            )
            for number, turn in enumerate(report.turns, 1)
        ]


async def _as_made(settings: Settings, trace: str) -> Pcm | None:
    url = f"http://127.0.0.1:{settings.tts_port}/tts/traces/{trace}.wav"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return read_wav(await answer.read()) if answer.status == 200 else None
    except aiohttp.ClientError as error:
        raise Unavailable(f"the TTS worker does not answer: {error}") from error

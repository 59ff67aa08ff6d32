"""`callbox call`: talk to the box without a browser, and see what each turn did and took."""

import asyncio
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from daemons.audio import Pcm, level_dbfs, read_wav, wav_bytes
from daemons.errors import BadRequest, Unavailable
from daemons.settings import Settings
from ops.robot import AUDIBLE_DBFS, Robot, dial, happened

REPLY_TIMEOUT_S = 60.0
WORDS_KNOWN = ("stt_final", "captioned")
TAIL_NS = 400_000_000  # what is still on its way when the agent has sent its last frame
GREETING_TIMEOUT_S = 20.0
SPEECH_BELOW_PEAK_DB = 35.0

FIGURES = ("eot_to_first_audio_ms", "endpointing_ms", "stt_ms", "llm_ttft_ms", "tts_ttfa_ms", "tts_first_to_publish_ms")


class Turn(BaseModel):
    """One question and its answer. Figures are None where an event is missing.

    `cut_off`: the caller was, who had not finished; `interrupted`: the answer was.
    """

    generation: int
    said: str
    understood: str
    answer: str
    cut_off: bool
    interrupted: bool
    eot_to_first_audio_ms: float | None
    endpointing_ms: float | None
    stt_ms: float | None
    llm_ttft_ms: float | None
    tts_ttfa_ms: float | None
    tts_first_to_publish_ms: float | None
    speech_ended_ns: int
    answer_from_ns: int
    answer_to_ns: int
    events: list[dict[str, Any]]


class Report(BaseModel):
    call_id: str
    greeting: str
    turns: list[Turn]
    ended: str | None

    def figures(self) -> dict[str, list[float]]:
        """Every turn's value of each figure that it has."""
        return {name: [value for turn in self.turns if (value := getattr(turn, name)) is not None] for name in FIGURES}


class Utterance(BaseModel):
    """What the robot says: `words` for people, the audio for the box."""

    model_config = {"arbitrary_types_allowed": True}
    words: str
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class Asked:
    """A question whose answer has begun. Times are in ns."""

    words: str
    began_ns: int
    ended_ns: int  # its last sound
    generation: int
    answered_ns: int


async def talk(robot: Robot, utterances: Iterable[Utterance]) -> Report:
    """Hear the greeting, then say each utterance and hear its answer out. Raises Unavailable or TimeoutError."""
    greeting = (await robot.event(happened("reply_heard"), GREETING_TIMEOUT_S))["text"]
    turns = []
    for utterance in utterances:
        await asyncio.sleep(TAIL_NS / 1e9)
        turns.append(await hear_out(robot, await ask(robot, utterance)))
    return Report(
        call_id=robot.call_id, greeting=greeting, turns=turns, ended=robot.ended.reason if robot.ended else None
    )


async def ask(robot: Robot, utterance: Utterance) -> Asked:
    """Say it, and wait until it is being answered. Raises Unavailable or TimeoutError."""
    return await being_answered(robot, utterance, await robot.say(utterance.pcm))


async def being_answered(robot: Robot, utterance: Utterance, began_ns: int) -> Asked:
    """The same for what was begun to be said at `began_ns`."""
    ended_ns = began_ns + speech_end_ns(utterance.pcm)
    first = await robot.event(
        lambda event: event["event"] == "first_frame_published" and event["t_ns"] > ended_ns, REPLY_TIMEOUT_S
    )
    return Asked(utterance.words, began_ns, ended_ns, first["turn"], first["t_ns"])


async def hear_out(robot: Robot, asked: Asked) -> Turn:
    """The answer to its end, which may be an interruption. Raises Unavailable or TimeoutError."""
    generation, began_ns, ended_ns = asked.generation, asked.began_ns, asked.ended_ns
    over = await robot.event(
        lambda event: event["event"] in ("reply_finished", "last_frame_published") and event["turn"] == generation,
        REPLY_TIMEOUT_S,
    )
    heard = await robot.event(happened("reply_heard", turn=generation), REPLY_TIMEOUT_S)
    await asyncio.sleep(TAIL_NS / 1e9)
    events = [event for event in robot.events if event.get("turn") == generation]
    at = {event["event"]: event["t_ns"] for event in events}  # the last of each counts: takes replace each other
    audible_ns = robot.heard.audible_ns(ended_ns)

    def span_ms(from_event: str, to_event: str) -> float | None:
        return _ms(at[to_event] - at[from_event]) if from_event in at and to_event in at else None

    ready_ns = max(at.get("tts_first_chunk", 0), at.get("eot_committed", 0))
    return Turn(
        generation=generation,
        said=asked.words,
        understood=next((event["text"] for event in reversed(events) if event["event"] in WORDS_KNOWN), ""),
        answer=heard["text"],
        cut_off=any(
            event["event"] == "eot_committed" and began_ns < event["t_ns"] < ended_ns for event in robot.events
        ),
        interrupted=heard["cut_off"],
        eot_to_first_audio_ms=_ms(audible_ns - ended_ns) if audible_ns is not None else None,
        endpointing_ms=span_ms("user_stopped", "eot_committed"),
        stt_ms=span_ms("stt_requested", "stt_final"),
        llm_ttft_ms=span_ms("llm_requested", "llm_first_token"),
        tts_ttfa_ms=span_ms("tts_requested", "tts_first_chunk"),
        tts_first_to_publish_ms=_ms(at["first_frame_published"] - ready_ns) if ready_ns else None,
        speech_ended_ns=ended_ns,
        answer_from_ns=asked.answered_ns,
        answer_to_ns=over["t_ns"] + TAIL_NS,
        events=events,
    )


async def synthesize(settings: Settings, words: str, *, speed: float = 1.0) -> Utterance:
    """The robot's own voice is the box's TTS worker. Raises Unavailable."""
    url = f"http://127.0.0.1:{settings.tts_port}/v1/audio/speech"
    body = {"input": words, "response_format": "wav", "model": "tts", "speed": speed}
    try:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            data = await response.read()
            if response.status != 200:
                raise Unavailable(f"the TTS worker answered {response.status}: {data[:200].decode(errors='replace')}")
    except aiohttp.ClientError as error:
        raise Unavailable(f"no voice for --say: the TTS worker does not answer ({error}); is the box up?") from error
    return Utterance(words=words, pcm=read_wav(data))


async def recognise(session: aiohttp.ClientSession, stt_url: str, heard: Pcm) -> str:
    """What the STT worker at `stt_url` understands. Raises Unavailable."""
    form = aiohttp.FormData({"response_format": "text"})
    form.add_field("file", wav_bytes(heard), filename="speech.wav")
    try:
        async with session.post(f"{stt_url}/v1/audio/transcriptions", data=form) as answer:
            text = await answer.text()
    except aiohttp.ClientError as error:
        raise Unavailable(f"the STT worker does not answer: {error}") from error
    if answer.status != 200:
        raise Unavailable(f"the STT worker answered {answer.status}: {text[:200]}")
    return text


async def call(
    settings: Settings, *, door_url: str, say: Sequence[str], wavs: Sequence[Pcm], turns: int | None, console: Console
) -> tuple[Report, Pcm]:
    """One call; what was said and what the caller heard. Prints as it goes.

    Over TLS the certificate must be one that this machine trusts, or the one that SSL_CERT_FILE names: Python and
    LiveKit's library both read that variable.
    """
    spoken = [Utterance(words=f"{pcm.duration_ms / 1000:.1f} s of audio", pcm=pcm) for pcm in wavs]
    spoken += [await synthesize(settings, words) for words in say]
    if not spoken:
        raise BadRequest("say something: --say TEXT or --wav FILE, each as often as you like")
    utterances = list(itertools.islice(itertools.cycle(spoken), turns or len(spoken)))
    async with dial(
        door_url,
        access_key=settings.access_key.get_secret_value(),
        on_queued=lambda queued: console.print(f"All lines are busy: number {queued.position} in the queue."),
    ) as robot:
        console.print(f"[dim]{robot.call_id}[/dim]")
        report = await talk(robot, utterances)
        heard = robot.heard.pcm()
    _print(report, console)
    return report, heard


def _print(report: Report, console: Console) -> None:
    console.print(f"agent: {report.greeting}")
    for turn in report.turns:
        console.print(
            f"you:   {turn.understood}" + (f"  [dim]({turn.said})[/dim]" if turn.said != turn.understood else "")
        )
        console.print(f"agent: {turn.answer}")
    table = Table(title="time line, ms", title_justify="left")
    table.add_column("turn")
    for name in FIGURES:
        table.add_column(name.removesuffix("_ms").replace("_", " "), justify="right")
    for number, turn in enumerate(report.turns, 1):
        table.add_row(str(number), *(_cell(getattr(turn, name)) for name in FIGURES))
    if len(report.turns) > 1:
        columns = list(report.figures().values())
        table.add_section()
        table.add_row("median", *(_cell(statistics.median(values) if values else None) for values in columns))
        table.add_row(*_worst(columns))
    console.print(table)
    console.print(f"n = {len(report.turns)}; end of turn → first audio is measured at the caller")


def _worst(columns: list[list[float]]) -> list[str]:
    """A row of P95s; below 20 values a P95 is the maximum, and is called so."""
    if min(map(len, columns)) < 20:
        return ["max", *(_cell(max(values, default=None)) for values in columns)]
    return ["P95", *(_cell(float(np.percentile(values, 95))) for values in columns)]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _ms(ns: int) -> float:
    return round(ns / 1e6, 1)


def speech_start_ns(pcm: Pcm) -> int:
    """The beginning of the first 10 ms that lie within 35 dB of the loudest, from the first sample."""
    return _speech_ns(pcm)[0]


def speech_end_ns(pcm: Pcm) -> int:
    """The end of the last of them."""
    return _speech_ns(pcm)[1]


def _speech_ns(pcm: Pcm) -> tuple[int, int]:
    step = pcm.rate_hz // 100
    levels = [level_dbfs(pcm.samples[at : at + step]) for at in range(0, len(pcm.samples) - step + 1, step)]
    if not levels:
        return 0, 0
    bound = min(max(max(levels) - SPEECH_BELOW_PEAK_DB, AUDIBLE_DBFS), max(levels))
    loud = [index for index, level in enumerate(levels) if level >= bound]
    return round(loud[0] * 1e7), round((loud[-1] + 1) * 1e7)

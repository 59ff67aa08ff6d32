"""What silence ends a turn, and whom that cuts off: fixed waits beside words and voice, on recorded speech.

Silence is counted as the agent counts it, from the last window with speech; the VAD notes it about 100 ms late.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, get_args

import numpy as np
from rich.table import Table

from daemons.agent import persona
from daemons.agent.ending import Waits, endpoint_ms
from daemons.agent.hearing import PRE_ROLL_MS, SPEECH_BEGINS, SPEECH_GOES_ON
from daemons.agent.smart_turn import FILE, SmartTurn
from daemons.agent.turn import Timing
from daemons.audio import FloatSamples, to_float
from daemons.models import model_dir
from daemons.settings import Settings
from daemons.stt.engines.moonshine import Moonshine
from daemons.stt.stop import Stop
from daemons.vad import WINDOW_MS, WINDOW_SAMPLES, SileroVad
from ops.bench import pauses
from ops.bench.pauses import Half, Kind, Pause, Recording, Style
from ops.figures import Bound, Report, Summary
from ops.progress import console

ASKED_AFTER = round(Timing().speculate_ms / WINDOW_MS)  # silent windows, then STT and the model are asked
ASKED_AGAIN_AFTER = 10
AGAIN_MS = ASKED_AGAIN_AFTER * WINDOW_MS
ANSWER_MS = 60.0  # what the model takes, so that a second look ends no turn sooner
LONGEST_S = 14.0  # what STT takes at once
BEFORE_WINDOWS = round(PRE_ROLL_MS / WINDOW_MS)
SAME_PAUSE_S = (-0.1, 0.25)  # VAD notes the end of speech late
FIXED_MS = (200, 300, 480, 700, 1000)
FIRST_SOUND_MS = 400.0  # of silence: no reply is heard sooner, and whoever goes on until then was not cut off
RIVAL = "480 ms of silence"
CHOSEN = "words and voice"
CUT_OFF_LIMIT = 0.75  # of the rival's
WAIT_LIMIT_MS = 300.0


@dataclass(frozen=True, slots=True)
class Heard:
    """One pause as the agent meets it. `later`: the probability after AGAIN_MS of silence, where it lasts so long."""

    style: Style
    half: Half
    kind: Kind
    utterance: str  # which one of all
    silence_ms: float
    text: str
    probability: float
    later: float | None


Policy = Callable[[Heard], float]


@dataclass
class Costs:
    """CPU time of each decision, in ms."""

    words: list[float] = field(default_factory=list)
    voice: list[float] = field(default_factory=list)


class Silence(NamedTuple):
    """In windows: the first silent one, and the first with speech after it."""

    begins: int
    ends: int


class Ears:
    """The VAD, the STT engine and the turn model of the box, on one thread each."""

    def __init__(self, settings: Settings) -> None:
        self._vad = SileroVad(model_dir(settings, settings.vad_model) / "silero_vad.onnx")
        self._stt = Moonshine(model_dir(settings, "moonshine-tiny-en"), threads=1)
        self._stt.load()
        self._model = SmartTurn(model_dir(settings, "smart-turn-v3.2") / FILE)
        self.costs = Costs()

    def hear(self, recording: Recording) -> Iterable[Heard]:
        """The marked pauses of a recording, as far as the VAD finds them."""
        samples = to_float(recording.samples)
        speech = self._speech(samples)
        silences = _silences(speech)
        utterance_from = 0.0
        for pause in recording.pauses:
            utterance_from = max(utterance_from, *(at_s for at_s in recording.from_s if at_s < pause.at_s))
            silence = _nearest(silences, pause)
            if silence is None:
                continue
            yield self._hear(recording, samples, speech, silence, pause, utterance_from)
            if pause.kind != "inside":
                utterance_from = silence.begins * WINDOW_MS / 1000

    def _hear(
        self,
        recording: Recording,
        samples: FloatSamples,
        speech: list[bool],
        silence: Silence,
        pause: Pause,
        from_s: float,
    ) -> Heard:
        earliest = max(int(from_s * 1000 / WINDOW_MS), silence.begins - int(LONGEST_S * 1000 / WINDOW_MS), 0)
        onset = next((at for at in range(earliest, silence.begins) if speech[at]), earliest)
        begins = max(earliest, onset - BEFORE_WINDOWS)
        text, probability = self._ask(_cut(samples, begins, silence.begins + ASKED_AFTER))
        later = None
        if silence.begins + ASKED_AGAIN_AFTER <= silence.ends:
            later = self._model(_cut(samples, begins, silence.begins + ASKED_AGAIN_AFTER))
        lasts = (silence.ends - silence.begins) * WINDOW_MS
        which = f"{recording.name} {earliest}"
        return Heard(recording.style, recording.half, pause.kind, which, lasts, text, probability, later)

    def _ask(self, utterance: FloatSamples) -> tuple[str, float]:
        began_s = time.process_time()
        text = self._stt.transcribe(utterance, Stop())
        endpoint_ms(text, None, Waits())
        heard_s = time.process_time()
        probability = self._model(utterance)
        self.costs.words.append((heard_s - began_s) * 1000)
        self.costs.voice.append((time.process_time() - heard_s) * 1000)
        return text, probability

    def _speech(self, samples: FloatSamples) -> list[bool]:
        """Of each window, as daemons/agent/hearing.py decides it."""
        self._vad.reset()
        speech = [False]
        for at in range(0, len(samples) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
            probability = self._vad(samples[at : at + WINDOW_SAMPLES])
            speech.append(probability >= (SPEECH_GOES_ON if speech[-1] else SPEECH_BEGINS))
        return speech[1:]


def _cut(samples: FloatSamples, begins: int, ends: int) -> FloatSamples:
    return samples[begins * WINDOW_SAMPLES : ends * WINDOW_SAMPLES]


def _silences(speech: list[bool]) -> list[Silence]:
    edges = np.flatnonzero(np.diff(np.array([False, *speech, True], np.int8))).tolist()
    falls, rises = edges[1::2], edges[2::2]
    return [Silence(fall, rise) for fall, rise in zip(falls, rises, strict=False) if rise - fall >= ASKED_AFTER]


def policies(waits: Waits) -> dict[str, Policy]:
    """How long each would wait."""
    fixed: dict[str, Policy] = {f"{ms} ms of silence": lambda _, ms=ms: float(ms) for ms in FIXED_MS}  # type: ignore[misc]

    def words_and_voice(heard: Heard) -> float:
        return endpoint_ms(heard.text, heard.probability, waits)

    def asked_again(heard: Heard) -> float:
        first = words_and_voice(heard)
        at_least = AGAIN_MS + ANSWER_MS
        if heard.later is None or first <= at_least:
            return first
        return max(at_least, endpoint_ms(heard.text, max(heard.probability, heard.later), waits))

    return fixed | {
        "words alone": lambda heard: endpoint_ms(heard.text, None, waits),
        "voice alone": lambda heard: endpoint_ms("Done.", heard.probability, waits),
        CHOSEN: words_and_voice,
        f"{CHOSEN}, asked again after {AGAIN_MS:.0f} ms": asked_again,
    }


class Share(NamedTuple):
    part: int
    whole: int

    def __str__(self) -> str:
        return f"{self.part}/{self.whole}"

    @classmethod
    def of(cls, hits: Iterable[bool]) -> "Share":
        counted = Counter(hits)
        return cls(counted[True], counted.total())


@dataclass(frozen=True, slots=True)
class Row:
    """What a policy does to one half: which share of pauses it takes for the end, and how long it waits at one.

    `inside`, `audible` (those that last until a reply could be heard) and `utterances` are of people's free talk.
    """

    half: Half
    policy: str
    inside: Share
    audible: Share
    utterances: Share
    reading: Share
    digits: Share
    between: Share
    wait_ms: Summary

    @classmethod
    def of(cls, half: Half, name: str, policy: Policy, heard: list[Heard]) -> "Row":
        def cut(pauses: list[Heard], at_least_ms: float = 0.0) -> Share:
            return Share.of(pause.silence_ms >= max(at_least_ms, policy(pause)) for pause in pauses)

        def inside(style: Style) -> list[Heard]:
            return [one for one in heard if one.kind == "inside" and one.style == style]

        talk = inside("talk")
        return cls(
            half=half,
            policy=name,
            inside=cut(talk),
            audible=cut(talk, FIRST_SOUND_MS),
            utterances=Share(
                len({one.utterance for one in talk if one.silence_ms >= policy(one)}),
                len({one.utterance for one in heard if one.style == "talk"}),
            ),
            reading=cut(inside("reading")),
            digits=cut(inside("digits")),
            between=cut([one for one in heard if one.kind == "sentence"]),
            wait_ms=Summary.of(policy(one) for one in heard if one.kind == "end" and one.style != "digits"),
        )


@dataclass
class Comparison(Report):
    rows: list[Row] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """Each pause too, so that one sees what the words and the voice said where it went wrong."""
        each = {name: [asdict(one) for one in getattr(self, name)] for name in ("rows", "heard")}
        return super().as_data() | each

    def show(self) -> None:
        super().show()
        for half in get_args(Half):
            console.print(f"[bold]{half}[/bold]: cut off … of pauses; wait (ms) after the last word of a turn")
            console.print(_table([row for row in self.rows if row.half == half]))


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("in a sentence", "and heard", "utterances", "reading", "digits", "between", "median", "P95"):
        table.add_column(title, justify="right")
    for row in rows:
        shares = (row.inside, row.audible, row.utterances, row.reading, row.digits, row.between)
        table.add_row(row.policy, *map(str, shares), f"{row.wait_ms.median:.0f}", f"{row.wait_ms.p95_or_max:.0f}")
    return table


def measure(settings: Settings, spoken: list[Recording], on_recording: Callable[[int], None]) -> Comparison:
    """Raises ConfigurationError without the models."""
    ears = Ears(settings)
    heard: list[Heard] = []
    for recording in spoken:
        heard += ears.hear(recording)
        on_recording(1)
    marks = sum(len(recording.pauses) for recording in spoken)
    return report(heard, ears.costs, persona.load(settings.persona).turns.waits, marks)


def report(heard: list[Heard], costs: Costs, waits: Waits, marks: int) -> Comparison:
    rows = [
        Row.of(half, name, policy, [one for one in heard if one.half == half])
        for half in get_args(Half)
        for name, policy in policies(waits).items()
    ]
    chosen, rival = (next(row for row in rows if (row.half, row.policy) == ("test", name)) for name in (CHOSEN, RIVAL))
    kinds = Counter(one.kind for one in heard)
    return Comparison(
        "endpointing: how much silence ends a turn, and whom that cuts off",
        facts={
            "pauses inside sentences": kinds["inside"],
            "between sentences": kinds["sentence"],
            "ends of turns": kinds["end"],
            "marked, but not found by the VAD": marks - len(heard),
            "shortest wait": f"{waits.shortest_ms:.0f} ms",
            "longest": f"{waits.longest_ms:.0f} ms",
            "prompts and digits": "there" if pauses.PROMPTS.exists() else f"left out ({pauses.INSTALL_PROMPTS})",
        },
        samples={
            "CPU of STT, which is needed anyway": Summary.of(costs.words),
            "CPU of the turn model": Summary.of(costs.voice),
        },
        rows=rows,
        heard=heard,
        bounds=[
            Bound(f"cut off, to those of {RIVAL}", _ratio(chosen.inside, rival.inside), CUT_OFF_LIMIT, "times"),
            Bound("median wait at the end of a turn", chosen.wait_ms.median, WAIT_LIMIT_MS, "ms"),
        ],
    )


def _ratio(one: Share, other: Share) -> float:
    return one.part / other.part if other.part else math.nan


def _nearest(silences: list[Silence], pause: Pause) -> Silence | None:
    """The silence that is this pause."""
    late_s = {silence: silence.begins * WINDOW_MS / 1000 - pause.at_s for silence in silences}
    near = [silence for silence, late in late_s.items() if SAME_PAUSE_S[0] < late < SAME_PAUSE_S[1]]
    return min(near, key=lambda silence: abs(late_s[silence]), default=None)

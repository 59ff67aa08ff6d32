"""How soon a caller is answered, through LiveKit, with speculation and without; what it costs and throws away."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import psutil

from ops.caller import FIGURES, Turn, Utterance, synthesize, talk
from ops.figures import Bound, Report, Summary
from ops.metrics import metrics_at
from ops.private_box import PrivateBox
from ops.robot import dial

QUESTIONS = (
    "What is the capital of France?",
    "How many days are in a week?",
    "What colour is the sky on a clear day?",
    "Which month comes after June?",
    "What do bees make?",
)
TURNS_PER_CALL = len(QUESTIONS)
PROGRAMS = ("agent", "stt", "llm", "tts")
ANSWER_P95_LIMIT_MS = 3000.0  # far above what is wanted: a busy machine must not fail it
SMALL_MODEL = "smollm2-135m"

_NAMES = {
    "eot_to_first_audio_ms": "end of speech → first audio heard",
    "endpointing_ms": "  end of speech → end of turn decided",
    "stt_ms": "  transcription",
    "llm_ttft_ms": "  first token",
    "tts_ttfa_ms": "  first words spoken",
    "tts_first_to_publish_ms": "  ready → published",
}


@dataclass(slots=True)
class Arm:
    """What was measured with one setting."""

    turns: list[Turn] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    speculations: dict[str, float] = field(default_factory=lambda: defaultdict(float))


async def measure(turns: int, *, arms: Sequence[bool], llm_model: str, on_turn: Callable[[int], None]) -> Report:
    """At least `turns` turns with each of `arms` (with speculation or without), call by call in turn.

    Raises StepFailed when the box does not come up, Unavailable or TimeoutError when a call fails.
    """
    taken = {speculation: Arm() for speculation in arms}
    with PrivateBox(slots=1, llm_model=llm_model) as box:
        questions = [await synthesize(box.settings, words) for words in QUESTIONS]
        for first in range(0, turns, TURNS_PER_CALL):
            count = min(TURNS_PER_CALL, turns - first)
            for speculation, arm in taken.items():
                box.write_persona(speculation=str(speculation).lower(), max_sentences=1)
                await _call(box, arm, list(itertools.islice(questions, count)))
                on_turn(count)
    return _report(taken, llm_model)


async def _call(box: PrivateBox, arm: Arm, questions: list[Utterance]) -> None:
    cpu_before, counted_before = _cpu_s(box), await _speculations(box)
    async with dial(box.settings.door_url) as robot:
        arm.turns += (await talk(robot, questions)).turns
    for program, seconds in _cpu_s(box).items():
        arm.cpu_s[program] += seconds - cpu_before[program]
    for outcome, count in (await _speculations(box)).items():
        arm.speculations[outcome] += count - counted_before[outcome]


def _cpu_s(box: PrivateBox) -> dict[str, float]:
    times = {program: psutil.Process(box.pid(program)).cpu_times() for program in PROGRAMS}
    return {program: spent.user + spent.system for program, spent in times.items()}


async def _speculations(box: PrivateBox) -> dict[str, float]:
    async with aiohttp.ClientSession() as http:
        metrics = await metrics_at(http, f"http://127.0.0.1:{box.settings.agent_port + 1}")
    return {how[0]: count for (name, how), count in metrics.items() if name == "callbox_speculations_total"}


def _report(arms: dict[bool, Arm], llm_model: str) -> Report:
    report = Report("How soon a caller is answered", facts={"llm": llm_model, "questions": len(QUESTIONS)})
    for speculation, arm in arms.items():
        label = "with speculation" if speculation else "without"
        for figure in FIGURES:
            values = [value for turn in arm.turns if (value := getattr(turn, figure)) is not None]
            if values:
                report.samples[f"{_NAMES[figure]}, {label}"] = Summary.of(values)
        for program, seconds in arm.cpu_s.items():
            report.counts[f"CPU of {program}, ms a turn, {label}"] = round(seconds * 1000 / len(arm.turns), 1)
        report.counts[f"turns cut off, {label}"] = sum(turn.cut_off for turn in arm.turns)
        answers = Summary.of(turn.eot_to_first_audio_ms or float("inf") for turn in arm.turns)
        report.bounds.append(Bound(f"answered, P95, {label}", answers.p95_or_max, ANSWER_P95_LIMIT_MS, "ms"))
    if (with_it := arms.get(True)) is not None and (begun := sum(with_it.speculations.values())):
        report.counts["replies prepared early"] = begun
        report.ratios["thrown away, of these"] = with_it.speculations["thrown_away"] / begun
    if len(arms) == 2:
        medians = [_median_ms(arms[speculation]) for speculation in (True, False)]
        report.ratios["answered with speculation, next to without"] = medians[0] / medians[1]
    return report


def _median_ms(arm: Arm) -> float:
    return Summary.of(turn.eot_to_first_audio_ms or float("inf") for turn in arm.turns).median

"""What happens when the caller makes a sound while the agent speaks, through LiveKit, as a robot hears it."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from daemons.audio import Pcm
from ops.caller import Utterance, ask, speech_end_ns, speech_start_ns, synthesize
from ops.figures import Bound, Report, Summary
from ops.private_box import PrivateBox
from ops.robot import RATE_HZ, Robot, dial, happened

STORY = "Please tell me a long story about a dog and a cat."
INTERRUPTION = "Stop, please. What is the capital of France?"
BACKCHANNELS = ("Okay.", "Yeah.", "Right.", "I see.")
HEADSET = "a headset"
LEAKS_DB = (-20.0, -30.0, -40.0)
BEFORE_S = 1.0  # of the answer are heard before the sound
EVENT_S = 30.0
TAIL_S = 0.5
SILENCE_P95_LIMIT_MS = 1000.0
CANCEL_P95_LIMIT_MS = 25.0


@dataclass(slots=True)
class Taken:
    silence_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by the kind of telephone
    cancel_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    sounds: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # made over an answer, by their kind
    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # answers that they held, if for a moment
    cut_off: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # answers that they ended


async def measure(turns: int, *, llm_model: str, on_turn: Callable[[int], None]) -> Report:
    """In a box of its own. Raises StepFailed when it does not come up, and what `take` raises."""
    with PrivateBox(slots=1, llm_model=llm_model) as box:
        box.write_persona(max_sentences=4)
        taken = await take(box, turns, leaks_db=LEAKS_DB, on_turn=on_turn)
    return report(taken, llm_model)


async def take(box: PrivateBox, turns: int, *, leaks_db: Sequence[float], on_turn: Callable[[int], None]) -> Taken:
    """Each turn: an interruption that is meant, a cough, a backchannel, and each leak of the agent's own voice.

    Into the first of the leaks an interruption is said, too.

    Raises Unavailable or TimeoutError when a call fails, or the agent goes on where it is interrupted.
    """
    taken = Taken()
    story, interruption = [await synthesize(box.settings, words) for words in (STORY, INTERRUPTION)]
    backchannels = [await synthesize(box.settings, words) for words in BACKCHANNELS]
    for number in range(turns):
        async with dial(box.settings.door_url) as robot:
            await robot.event(happened("reply_heard"), EVENT_S)
            await _interrupt(robot, story, interruption, HEADSET, taken)
            await _disturb(robot, story, cough(number), "coughs", taken)
            await _disturb(robot, story, backchannels[number % len(backchannels)].pcm, "backchannels", taken)
        for leak_db in leaks_db:
            async with dial(box.settings.door_url) as robot:
                robot.leak_db = leak_db  # from the greeting on, as a speakerphone does
                await robot.event(happened("reply_heard"), EVENT_S)
                await _disturb(robot, story, None, f"leaks of {leak_db:.0f} dB", taken)
                if leak_db == leaks_db[0]:
                    await _interrupt(robot, story, interruption, f"a leak of {leak_db:.0f} dB", taken)
        on_turn(1)
    return taken


async def _interrupt(robot: Robot, story: Utterance, interruption: Utterance, telephone: str, taken: Taken) -> None:
    asked_ns = await _until_answering(robot, story)
    began_ns = await robot.say(interruption.pcm)
    onset_ns = began_ns + speech_start_ns(interruption.pcm)
    ended_ns = began_ns + speech_end_ns(interruption.pcm)
    cancelled = await robot.event(happened("cancel_requested", asked_ns, why="barge_in"), EVENT_S)
    last = await robot.event(happened("last_frame_published", cancelled["t_ns"]), EVENT_S)
    first = await robot.event(happened("first_frame_published", ended_ns), EVENT_S)
    await robot.event(happened("reply_heard", first["t_ns"]), EVENT_S)
    await asyncio.sleep(TAIL_S)
    silent_ns = robot.heard.silent_ns(onset_ns, first["t_ns"])
    taken.silence_ms[telephone].append((silent_ns - onset_ns) / 1e6)
    taken.cancel_ms.append((last["t_ns"] - cancelled["t_ns"]) / 1e6)
    if (audible_ns := robot.heard.audible_ns(max(ended_ns, silent_ns))) is not None:
        taken.answer_ms.append((audible_ns - ended_ns) / 1e6)


async def _disturb(robot: Robot, story: Utterance, sound: Pcm | None, kind: str, taken: Taken) -> None:
    asked_ns = await _until_answering(robot, story)
    began_ns = asked_ns if sound is None else await robot.say(sound)
    heard = await robot.event(happened("reply_heard", asked_ns), 2 * EVENT_S)
    if heard["t_ns"] > began_ns:  # a short answer may be over by then
        taken.sounds[kind] += 1
        taken.cut_off[kind] += heard["cut_off"]
        held = (event for event in robot.events if event["event"] == "user_started")
        taken.held[kind] += any(asked_ns < event["t_ns"] < heard["t_ns"] for event in held)
    await asyncio.sleep(TAIL_S)


async def _until_answering(robot: Robot, question: Utterance) -> int:
    """Ask, and hear a little of the answer; returns when its first frame was sent, in ns."""
    asked = await ask(robot, question)
    await asyncio.sleep(BEFORE_S)
    return asked.answered_ns


def cough(seed: int) -> Pcm:
    """A burst of noise, 200 ms, that falls off: made of no voice, so that only its length and level speak for it."""
    rng = np.random.default_rng(seed)
    length = RATE_HZ // 5
    noise = rng.normal(0, 0.2, length) * np.exp(-np.linspace(0, 5, length))
    return Pcm((np.clip(noise, -1, 1) * 32767).astype(np.int16), RATE_HZ)


def report(taken: Taken, llm_model: str) -> Report:
    found = Report("The caller makes a sound while the agent speaks", facts={"llm": llm_model})
    cancel = Summary.of(taken.cancel_ms)
    silences = {telephone: Summary.of(silence_ms) for telephone, silence_ms in taken.silence_ms.items()}
    for telephone, silence in silences.items():
        found.samples[f"speech of the caller → silence heard, {telephone}"] = silence
    found.samples["cancel → last frame published"] = cancel
    if taken.answer_ms:
        found.samples["end of the interruption → its answer heard"] = Summary.of(taken.answer_ms)
    for kind, count in taken.sounds.items():
        found.counts[f"answers held for a moment by {kind}, of {count}"] = taken.held[kind]
        found.bounds.append(Bound(f"answers ended by {kind}, of {count}", taken.cut_off[kind], 0))
    found.bounds += [
        *(
            Bound(f"speech of the caller → silence heard, {telephone}, P95", s.p95_or_max, SILENCE_P95_LIMIT_MS, "ms")
            for telephone, s in silences.items()
        ),
        Bound("cancel → last frame published, P95", cancel.p95_or_max, CANCEL_P95_LIMIT_MS, "ms"),
    ]
    return found

"""What to do about a gate that was missed: the symptom, the stage that owns it, and where to look.

In ADVICE a gate has the name that its bound has in a report, up to the comma: what follows tells the statistic. Files
are named as they lie in the folder of a run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ops.lab import live
from ops.lab.mutate import fault_named


@dataclass(frozen=True, slots=True)
class Advice:
    symptom: str
    stage: str
    look: tuple[str, ...]
    measure: str | None = None  # of Measures, that the gate is about


ADVICE: dict[str, Advice] = {
    "answers found in the recording": Advice(
        "What the speech worker made is not in what the caller heard, or is there too softly.",
        "playout in the agent, and LiveKit behind it",
        (
            "play heard.wav: silence, something else, or the answer, only soft?",
            "first_frame_published and reply_finished in turn.json: with both it was sent, and lost later; see "
            "logs/livekit.log",
            "without them the agent sent nothing: logs/agent.log says why",
        ),
        "active_dbfs",
    ),
    "answers as made by the speech worker": Advice(
        "The speech worker kept nothing to compare with, so this turn was not judged.",
        "the TTS worker, which keeps what it makes for calls that ask for it",
        (
            "logs/tts.log: it may have restarted between the answer and the end of the call",
            "tts_requested and tts_first_chunk in turn.json: without them nothing was to be said",
        ),
    ),
    "longest gap": Advice(
        "A hole in the voice: for a while the caller heard nothing while something was said.",
        "playout in the agent, which had nothing to send or came too late; else the network",
        (
            "the marked place in the picture, and said.wav beside heard.wav there",
            "`callbox bench tts`: a voice that is made more slowly than it is played leaves holes between its pieces",
            "logs/agent.log and the load of the machine: who is late for 20 ms is late for the caller",
        ),
        "max_gap_ms",
    ),
    "dropout": Advice(
        "Bits of the voice are missing.",
        "the way from the agent to the caller: packets that are lost or come too late",
        (
            "the marked places in the picture: many short ones are packets, one long one is a gap",
            "logs/livekit.log, and the load of the machine: `callbox bench load` says how many calls it carries",
        ),
        "dropout_pct",
    ),
    "clipping": Advice(
        "The voice is louder than the converter can tell: it crackles.",
        "the TTS engine when said.wav clips, too; else the agent's mixer",
        (
            "said.wav: is its own waveform cut off at the top?",
            "a background sound in the persona (`[sounds]`, `ambience_db`) is added to the voice",
        ),
        "clipping_pct",
    ),
    "mel distance": Advice(
        "The voice has another timbre than the one that was made.",
        "what changes samples on their way: the agent's resampling and mixer, LiveKit's codec",
        (
            "the spectrograms: a dark upper half is a narrow band, stripes are distortion, a haze is noise",
            "versions.json beside that of the last good run: livekit and soxr among the packages",
            "`callbox lab self-test`: whether the measure itself can still be trusted",
        ),
        "mel_distance_db",
    ),
    "speed": Advice(
        "The answer is played too fast or too slowly, and so too high or too low.",
        "a sample rate that one of two sides takes for another: the TTS engine, or the agent's playout",
        (
            "the sample rates of said.wav and of what the engine says it makes",
            "above 0.5 % gaps, dropouts and spikes cannot be measured: mend this first",
        ),
        "drift_pct",
    ),
    "high tones lost": Advice(
        "The voice is muffled: what lies above 4 kHz has got lost.",
        "resampling in the agent, or the codec's rate",
        (
            "the spectrograms: from which frequency on is it dark?",
            "versions.json beside that of the last good run: livekit and soxr among the packages",
        ),
        "hf_ratio_drop_db",
    ),
    "clicks and booms": Advice(
        "There are clicks or thumps that nobody said.",
        "where pieces of sound meet: the seams of the TTS engine, holds and pauses in the agent's playout",
        (
            "the marked places in the picture; are they in said.wav, too?",
            "`callbox bench tts`: its seams",
        ),
        "spike_count",
    ),
    "end of speech → first audio heard": Advice(
        "The caller waits too long for the answer.",
        "the stage with the longest bar in the picture of the waits",
        (
            "endpointing: `[turns]` in the persona, and `callbox bench endpointing`",
            "speech to text: `callbox bench stt`; first token: `callbox bench llm`; first sound: `callbox bench tts`",
            "the load of the machine: `callbox bench turns` takes the same time without a lab around it",
        ),
    ),
    "first audio made → sent": Advice(
        "The answer's first sound is there, the turn is over, and the agent does not send it.",
        "playout in the agent",
        (
            "tts_first_chunk, eot_committed and first_frame_published in turn.json: the later of the first two counts",
            "logs/agent.log: something that holds its event loop holds every caller's voice",
        ),
    ),
    "answers without the word that they must have": Advice(
        "The answer is about something else.",
        "STT when it understood something else than what was said; else the LLM",
        (
            "what was said beside what was understood",
            "the model and the persona: `callbox models list`, and `instructions` in the persona",
        ),
    ),
    "cases without a call": Advice(
        "A call broke twice, and nothing could be judged of it.",
        "whoever is named in the report's failures",
        ("the failures in the report, in words", "logs/agent.log and logs/token.log at that time"),
    ),
    "callers cut off in mid-sentence": Advice(
        "The agent took a pause in a sentence for its end, and answered half of it.",
        "endpointing in the agent",
        (
            "eot_committed in turn.json lies before the caller's last sound",
            "`[turns]` in the persona: the shortest and the longest wait; `callbox bench endpointing` weighs them",
        ),
    ),
    "times spoken to in their silence": Advice(
        "The agent spoke although the caller had said nothing.",
        "voice activity in the agent, which heard speech where there is none; else its asking for the caller",
        ("user_started and stt_final in turn.json: what was understood?", "idle_s, when it asked for the caller"),
    ),
    "sounds that came when the answer was over": Advice(
        "The answer was over before the caller's sound came, so nothing is known of what it would have done.",
        "the LLM, which answered in fewer words than the case wants",
        ("the answer in turn.json", "max_sentences of the case, and the model"),
    ),
    "answers ended by a cough or an okay": Advice(
        "The agent stopped speaking for a sound that was no interruption.",
        "the turn machine in the agent, which took it for words that are meant",
        (
            "stt_final in turn.json: as what was it understood?",
            "`callbox bench barge-in`: how often coughs and words of agreement end an answer",
        ),
    ),
    "interruptions that did not end the answer": Advice(
        "The caller said stop, and the agent went on.",
        "voice activity and transcription in the agent: it did not hear the words, or took them for agreement",
        (
            "playout_held and playout_resumed in turn.json: held and resumed, it heard, and did not believe",
            "stt_final: what was understood of the interruption?",
        ),
    ),
    "interruption → silence heard": Advice(
        "The agent went on for too long after it was interrupted.",
        "the turn machine when barge_in came late; playout when last_frame_published came late after it",
        ("barge_in, cancel_requested and last_frame_published in turn.json", "`callbox bench barge-in`"),
    ),
    **{
        f"{fault} not found by {fault_named(fault).found_by}": Advice(
            f"The lab put a fault into this call ({fault}) and did not find it: then it would not find a real one.",
            "the lab itself, or its worker that spoils, which did not",
            (
                "said.wav beside heard.wav: is the fault to be heard?",
                "`callbox lab self-test`: whether the detector finds it in recordings",
            ),
        )
        for fault in live.FAULTS
    },
}

UNMEASURED = Advice(
    "It could not be measured in every turn, and what was not measured has not passed.",
    "the stages of the other gates that those turns miss",
    (
        "the turns in which it is not measurable: was something made, and is it in what was heard?",
        "a wrong speed: above 0.5 % what is counted by frames cannot be told",
    ),
)


def of(bound_name: str) -> Advice | None:
    """Of a bound in the lab's report."""
    return ADVICE.get(gate_of(bound_name))


def gate_of(bound_name: str) -> str:
    return bound_name.partition(",")[0]


def of_measure(measure: str) -> str:
    """The name of the gate that a measure is for."""
    return next(name for name, advice in ADVICE.items() if advice.measure == measure)


def to_do(bounds: Iterable[dict[str, Any]]) -> list[tuple[Advice, list[str]]]:
    """For what was missed of a report's bounds: each advice once, and about which gates it is."""
    about: dict[Advice, list[str]] = {}
    for bound in bounds:
        known = UNMEASURED if bound["measured"] is None else of(bound["name"])
        if not bound["held"] and known is not None:
            about.setdefault(known, []).append(gate_of(bound["name"]))
    return list(about.items())


def in_lines(bounds: Iterable[dict[str, Any]]) -> list[str]:
    """The same for a terminal."""
    lines = []
    for known, gates in to_do(bounds):
        lines += [f"{', '.join(gates)}: {known.symptom}", f"  owned by {known.stage}"]
        lines += [f"  → {look}" for look in known.look]
    return lines

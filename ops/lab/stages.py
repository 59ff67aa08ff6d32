"""What a caller's wait consists of: the stages of a turn, by the events of its trace, on one line.

They overlap where an answer is prepared before it is sure that the turn is over.
"""

from typing import NamedTuple

from ops.caller import Turn

ENDPOINTING, STT, LLM, TTS = "endpointing", "speech to text", "first token", "first sound made"
SENT, ON_ITS_WAY = "made → sent", "sent → heard"
STAGES = (ENDPOINTING, STT, LLM, TTS, SENT, ON_ITS_WAY)

_BETWEEN = {
    ENDPOINTING: ("user_stopped", "eot_committed"),
    STT: ("stt_requested", "stt_final"),
    LLM: ("llm_requested", "llm_first_token"),
    TTS: ("tts_requested", "tts_first_chunk"),
}


class Span(NamedTuple):
    """From and to in ms after the last sound of the caller, as the recording that they play has it."""

    stage: str
    from_ms: float
    to_ms: float


def spans(turn: Turn) -> list[Span]:
    """In the order of STAGES; a stage whose events are missing is left out."""
    at = {event["event"]: event["t_ns"] for event in turn.events}  # the last of each counts: takes replace each other
    known = {stage: (at.get(first), at.get(last)) for stage, (first, last) in _BETWEEN.items()}
    ready_ns = max(at.get("tts_first_chunk", 0), at.get("eot_committed", 0))  # speculative audio waits for the commit
    sent_ns = at.get("first_frame_published")
    known[SENT] = (ready_ns or None, sent_ns)
    if turn.eot_to_first_audio_ms is not None:
        known[ON_ITS_WAY] = (sent_ns, turn.speech_ended_ns + round(turn.eot_to_first_audio_ms * 1e6))
    return [
        Span(stage, (from_ns - turn.speech_ended_ns) / 1e6, (to_ns - turn.speech_ended_ns) / 1e6)
        for stage, (from_ns, to_ns) in known.items()
        if from_ns is not None and to_ns is not None
    ]

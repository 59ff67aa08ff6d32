"""Two runs side by side, turn by turn: would a caller hear a difference, and what changed between them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ops.figures import Bound, Report, Row
from ops.lab.evidence import Run, TurnFacts

SURE_P = 0.01  # for all figures together (Bonferroni)
ENOUGH_PAIRS = 10  # with fewer no difference, however large, could be told from chance among so many figures


@dataclass(frozen=True, slots=True)
class Figure:
    """`matters`: a median difference that a person would notice, or would have to pay for."""

    name: str
    of: Callable[[TurnFacts], float | None]
    matters: float
    more_is_better: bool = False


FIGURES = (
    Figure("first audio heard, ms", lambda facts: facts.turn.eot_to_first_audio_ms, 50),
    Figure("endpointing, ms", lambda facts: facts.turn.endpointing_ms, 50),
    Figure("transcription, ms", lambda facts: facts.turn.stt_ms, 50),
    Figure("model's first token, ms", lambda facts: facts.turn.llm_ttft_ms, 50),
    Figure("first audio made, ms", lambda facts: facts.turn.tts_ttfa_ms, 50),
    Figure("made → sent, ms", lambda facts: facts.turn.tts_first_to_publish_ms, 20),
    Figure("gap, ms", lambda facts: facts.measures["max_gap_ms"], 20),
    Figure("dropout, %", lambda facts: facts.measures["dropout_pct"], 0.2),
    Figure("mel distance, dB", lambda facts: facts.measures["mel_distance_db"], 0.3),
    Figure("high tones lost, dB", lambda facts: facts.measures["hf_ratio_drop_db"], 1.0),
    Figure("words wrong, %", lambda facts: facts.trends.wrong_words_pct, 2.0),
    Figure("PLCMOS", lambda facts: facts.trends.plcmos, 0.1, more_is_better=True),
)


def compare(before: Run, after: Run) -> Report:
    """Fails when a figure got worse: by more than matters, and surely (Wilcoxon's signed ranks of the same turns)."""
    found = Report("What changed from one run to the other", unit="")
    found.facts = {"before": before.folder.name, "after": after.folder.name}
    pairs = [
        (one.facts, other.facts) for one in before.turns for other in after.turns if one.facts.name == other.facts.name
    ]
    found.counts["turns of both"] = len(pairs)
    rows = [_row(figure, pairs) for figure in FIGURES]
    found.tables["Medians of the same turns"] = rows
    if changed := list(_changes("", before.versions, after.versions)):
        found.tables["Made with something else"] = changed
    found.bounds = [
        Bound("turns of both", len(pairs), ENOUGH_PAIRS, kind="at least"),
        Bound("figures that got worse", sum(row["verdict"] == "worse" for row in rows), 0),
    ]
    return found


def _row(figure: Figure, pairs: list[tuple[TurnFacts, TurnFacts]]) -> Row:
    both = [(figure.of(one), figure.of(other)) for one, other in pairs]
    known = np.array([pair for pair in both if all(value is not None and math.isfinite(value) for value in pair)])
    if not len(known):
        return {
            "figure": figure.name,
            "n": 0,
            "before": None,
            "after": None,
            "difference": None,
            "p": None,
            "verdict": "",
        }
    differences = known[:, 1] - known[:, 0]
    p = float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    difference = float(np.median(differences))
    is_sure = p < SURE_P / len(FIGURES) and abs(difference) >= figure.matters
    is_better = (difference > 0) == figure.more_is_better
    return {
        "figure": figure.name,
        "n": len(known),
        "before": float(np.median(known[:, 0])),
        "after": float(np.median(known[:, 1])),
        "difference": difference,
        "p": p,
        "verdict": ("better" if is_better else "worse") if is_sure else "",
    }


def _changes(path: str, before: Any, after: Any) -> Iterator[Row]:
    """Leaves of the two trees that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _changes(f"{path}.{name}".lstrip("."), before.get(name), after.get(name))
    elif before != after:
        yield {"what": path, "before": str(before), "after": str(after)}

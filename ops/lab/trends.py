"""What is watched and decides nothing: how a recording is liked, and whether its words are understood."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from speechmos.plcmos import PLCMOS

from daemons.audio import STT_RATE_HZ, Pcm, to_float
from ops.words import WordErrors


@dataclass(frozen=True, slots=True)
class Trends:
    """`plcmos`: 1 to 5, what people would say of its gaps and how they are concealed (Diener et al., 2023).

    `wrong_words_pct`: of the answer's words, by the box's own speech recognition.
    """

    plcmos: float
    wrong_words_pct: float


def trends(heard: Pcm, said: str, understood: str) -> Trends:
    return Trends(plcmos(heard), 100 * WordErrors.between(said, understood).rate)


def plcmos(heard: Pcm) -> float:
    """Of its model's raters, some of whom are drawn at random: two runs differ by some hundredths."""
    return float(_model().get_mos(to_float(heard.resampled(STT_RATE_HZ).samples).astype(np.float64)))


@cache
def _model() -> PLCMOS:
    return PLCMOS()

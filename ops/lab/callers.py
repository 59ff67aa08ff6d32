"""What a case's callers say and what is around them, as audio."""

from collections.abc import Sequence

import numpy as np

from daemons.audio import SILENCE_DBFS, Pcm, Samples, level_dbfs, to_int16
from daemons.settings import Settings
from ops.bench.barge_in import cough
from ops.bench.pauses import recorded
from ops.caller import Utterance, synthesize
from ops.lab.cases import Case, Played, Sound, cases, pieces
from ops.robot import FRAME_SAMPLES, RATE_HZ

DEEP = 0.84  # of its pitch, and of the size of what it comes out of
NOISE_S = 7
ACTIVE_WITHIN_DB = 25.0
STEP_SAMPLES = RATE_HZ // 100

Piece = str | float | Played


class Voice:
    """One case's: words, sounds and noise, each made once."""

    def __init__(self, case: Case, made: dict[Piece, Pcm]) -> None:
        self.case = case
        self._made = made

    @classmethod
    async def of(cls, settings: Settings, case: Case) -> "Voice":
        """Raises Unavailable when the speech worker does not answer, or a sound cannot be fetched."""
        return cls(case, {piece: await _made(settings, case, piece) for piece in set(pieces(case))})

    def says(self, say: Sequence[Piece]) -> Utterance:
        words = " … ".join(
            piece.sound if isinstance(piece, Played) else piece for piece in say if not isinstance(piece, float)
        )
        samples = np.concatenate([self._made[piece].samples for piece in say])
        return Utterance(words=words, pcm=Pcm(self._at_level(samples), RATE_HZ))

    @property
    def noise(self) -> Samples:
        """int16 [n] at RATE_HZ: as loud as the case wants it beside its speech, pink; empty without any."""
        if self.case.noise_snr_db is None:
            return np.zeros(0, np.int16)
        levels = [speech_dbfs(self.says(line.say).pcm.samples) for line in self.case.lines]
        return pink_noise(max(levels) - self.case.noise_snr_db)

    def _at_level(self, samples: Samples) -> Samples:
        wanted = self.case.level_dbfs
        if wanted is None:
            return samples
        gain = 10 ** ((wanted - speech_dbfs(samples)) / 20)
        return to_int16((samples / 32768 * gain).astype(np.float32))


async def _made(settings: Settings, case: Case, piece: Piece) -> Pcm:
    match piece:
        case str():
            if case.voice == "own":
                return (await synthesize(settings, piece)).pcm.resampled(RATE_HZ)
            faster = (await synthesize(settings, piece, speed=1 / DEEP)).pcm
            return Pcm(Pcm(faster.samples, round(faster.rate_hz * DEEP)).resampled(RATE_HZ).samples, RATE_HZ)
        case Played():
            return _sound(settings, cases().sound[piece.sound])
        case _:
            return Pcm(np.zeros(round(piece * RATE_HZ), np.int16), RATE_HZ)


def _sound(settings: Settings, sound: Sound) -> Pcm:
    if sound.made:
        return cough(0)
    pcm = recorded(settings.cache_dir, sound.archive, sound.member)
    first = round(sound.from_s * pcm.rate_hz)
    last = None if sound.to_s is None else round(sound.to_s * pcm.rate_hz)
    return Pcm(pcm.samples[first:last], pcm.rate_hz).resampled(RATE_HZ)


def speech_dbfs(samples: Samples) -> float:
    """The level of int16 [n] at RATE_HZ where somebody speaks: of its 10 ms within ACTIVE_WITHIN_DB of the loudest."""
    levels = np.array(
        [level_dbfs(samples[at : at + STEP_SAMPLES]) for at in range(0, len(samples) - STEP_SAMPLES + 1, STEP_SAMPLES)]
    )
    loud = levels[levels > np.max(levels, initial=SILENCE_DBFS) - ACTIVE_WITHIN_DB]
    return float(10 * np.log10(np.mean(10 ** (loud / 10)))) if len(loud) else SILENCE_DBFS


def pink_noise(dbfs: float) -> Samples:
    """int16 [NOISE_S] at RATE_HZ, in whole frames, without a seam where it begins again; the same each time."""
    length = NOISE_S * RATE_HZ // FRAME_SAMPLES * FRAME_SAMPLES
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=length))
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, length)
    return to_int16((noise / np.sqrt(np.mean(noise**2)) * 10 ** (dbfs / 20)).astype(np.float32))

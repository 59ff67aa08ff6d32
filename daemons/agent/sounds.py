"""Sounds of the operator's: WAV files made loops that are repeated without a seam, and shared by all calls."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from daemons.audio import TTS_RATE_HZ, Samples, read_wav, to_float, to_int16
from daemons.crossfade import crossfaded
from daemons.errors import BadRequest

SEAM_S = 0.05  # so much of its end fades into its beginning
SHORTEST_S = 0.2
LONGEST_S = 60.0
MOST_BYTES = 30_000_000
RATES_HZ = range(8_000, 192_001)
KEPT_SOUNDS = 8  # at most 3 MB each


def read_loop(path: Path) -> Samples:
    """The sound in `path`, int16 [n] at 24 kHz, to be repeated from its end on.

    Read once for as long as the file stays the same. Raises BadRequest, in words, when it cannot be used.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from error
    if not path.is_file():
        raise BadRequest(f"{path} is no file")
    if found.st_size > MOST_BYTES:
        raise BadRequest(f"{path} has {found.st_size / 1e6:,.0f} MB; a sound has at most {MOST_BYTES / 1e6:.0f}")
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=KEPT_SOUNDS)
def _read(path: Path, _changed_ns: int, _size_bytes: int) -> Samples:
    try:
        pcm = read_wav(path)
    except (BadRequest, OSError) as error:
        raise BadRequest(f"{path}: {error}") from error
    if pcm.rate_hz not in RATES_HZ:
        raise BadRequest(f"{path} has {pcm.rate_hz} samples a second; {RATES_HZ[0]} to {RATES_HZ[-1]} are read")
    if not SHORTEST_S <= pcm.duration_ms / 1000 <= LONGEST_S:
        lasts = f"{path} lasts {pcm.duration_ms / 1000:.3g} s"
        raise BadRequest(f"{lasts}; a sound that is repeated lasts {SHORTEST_S:g} to {LONGEST_S:g} s")
    loop = _without_seam(pcm.resampled(TTS_RATE_HZ).samples)
    loop.setflags(write=False)  # calls share it
    return loop


def _without_seam(samples: Samples) -> Samples:
    seam = round(SEAM_S * TTS_RATE_HZ)
    joint = crossfaded(to_float(samples[-seam:]), to_float(samples[:seam]))
    return np.concatenate([to_int16(joint), samples[seam:-seam]])

"""What Qwen3-TTS costs on this machine: python -m daemons.tts.engines.qwen3.bench --size 0.6b --device cuda

Speed does not depend on what the weights say, so random ones of the true size do. Needs torch, numpy and safetensors.
"""

import argparse
import hashlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch

from daemons.errors import ConfigurationError
from daemons.tts.engines.qwen3.batch import Batch
from daemons.tts.engines.qwen3.codec import weights as codec_weights
from daemons.tts.engines.qwen3.codec.config import CodecConfig
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder
from daemons.tts.engines.qwen3.codec.precision import exact_float32
from daemons.tts.engines.qwen3.config import TalkerConfig, published, read_config
from daemons.tts.engines.qwen3.drift import Speaker, drift, snr_db
from daemons.tts.engines.qwen3.graphs import CudaDriver
from daemons.tts.engines.qwen3.prompt import prompt
from daemons.tts.engines.qwen3.quantization import Quantization, quantize
from daemons.tts.engines.qwen3.sampling import CodeSampler, SpeechSampling
from daemons.tts.engines.qwen3.stream import RAMP, Ending
from daemons.tts.engines.qwen3.talker import Talker
from daemons.tts.engines.qwen3.weights import load_talker, random_talker

FRAME_S = 0.08
SEED = 7
TEXT_TOKENS = 24
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")

# What runs as CUDA graphs: (codegen, decoder)
GRAPHS = {"eager": (False, False), "codegen": (True, False), "decoder": (False, True), "graphs": (True, True)}

# (who, where, TTFA in ms, RTF), as they published it
ANCHORS = (
    ("faster-qwen3-tts 0.6B", "RTX 4090", "156", "0.21"),
    ("faster-qwen3-tts 0.6B", "H100", "228", ""),
    ("nari-qwen3-tts 1.7B", "H100", "< 50 (P95)", ""),
    ("vLLM-Omni", "", "122-129", ""),
    ("the report, 0.6B", "L40S", "243 (P50)", "0.70"),
)


class Ids:
    """A text of ids that are all there."""

    def __init__(self, ids: Sequence[int], config: TalkerConfig) -> None:
        self._ids = [*ids, config.text_ids.tts_eos]
        self._pad = config.text_ids.tts_pad
        self._next = 0

    @property
    def has_text(self) -> bool:
        return True

    def put(self, piece: str) -> None:
        raise ValueError("these ids are the whole text")

    def end(self) -> None: ...

    def take(self) -> int:
        token = self._ids[self._next] if self._next < len(self._ids) else self._pad
        self._next += 1
        return token


@dataclass
class Heard:
    """What came of one stream, and when, in seconds from its opening."""

    began_s: float = field(default_factory=time.perf_counter)
    arrived_s: list[float] = field(default_factory=list)
    audio: list[torch.Tensor] = field(default_factory=list)
    ending: Ending | None = None

    def take(self, audio: torch.Tensor) -> None:
        self.arrived_s.append(time.perf_counter() - self.began_s)
        self.audio.append(audio.clone())

    def end(self, ending: Ending) -> None:
        self.ending = ending


class Subject:
    """A talker and a codec, of which batches of any size are made."""

    def __init__(
        self, size: str, folder: Path | None, device: torch.device, dtype: torch.dtype, quantization: Quantization
    ) -> None:
        """Raises ConfigurationError for a folder that is no checkpoint, or where torchao is missing."""
        config = published(size) if folder is None else read_config(folder)
        # Streams end where the bench says, and not by chance.
        self.config = replace(config, codec_ids=replace(config.codec_ids, eos=-1))
        self.device, self.dtype = device, dtype
        self._folder = folder
        self.talker = self._unquantized()
        quantize(self.talker, quantization)
        self.talker.to(device)
        if folder is None:
            codec_config = CodecConfig()
            network = codec_weights.build(codec_config, codec_weights.random_weights(codec_config, SEED))
        else:
            network = codec_weights.load(folder / "speech_tokenizer")
        self.decoder = IncrementalDecoder(network.to(device))
        speaker = next(iter(config.speakers))
        with torch.inference_mode():
            role = [config.text_ids.im_start] * 3  # as many as there are; what they say costs nothing
            given = prompt(config, role, config.text_ids.tts_pad, speaker=speaker)
            self.opening = given.embedded(self.talker, device)[0, :-1].clone()
        self.sampler = CodeSampler(self.config, SpeechSampling(), device=device)

    def _unquantized(self) -> Talker:
        if self._folder is None:
            return random_talker(self.config, SEED, dtype=self.dtype)
        return load_talker(self._folder, self.config, dtype=self.dtype)

    @torch.inference_mode()
    def drift(self, frames: int) -> dict[str, Any]:
        """What quantization changes, as `drift` says it."""
        exact, rounded = (
            Speaker(talker, self.config, self.sampler, self.opening, key=SEED, frames=frames)
            for talker in (self._unquantized().to(self.device), self.talker)
        )
        text = Ids(range(TEXT_TOKENS), self.config)
        figures: dict[str, Any] = drift(exact, rounded, [text.take() for _ in range(frames)], self.decoder)
        return figures

    def batch(self, rows: int, frames: int, graphs: str) -> Batch:
        """Its streams end after `frames`; `graphs` is one of GRAPHS."""
        drivers = [CudaDriver(self.device) if graphed else None for graphed in GRAPHS[graphs]]
        made = Batch(
            self.talker,
            self.decoder,
            self.sampler,
            self.config,
            self.opening,
            rows=rows,
            room=len(self.opening) + frames,
            codegen=drivers[0],
            decoding=drivers[1],
        )
        made.capture()
        return made

    def say(self, batch: Batch, streams: int, packets: tuple[int, ...]) -> tuple[list[Heard], list[list[list[int]]]]:
        """Open so many streams at once and step until they have ended: what was heard, and the codes."""
        ids = list(range(TEXT_TOKENS))
        heard = [Heard() for _ in range(streams)]
        opened = [
            batch.open(
                Ids(ids, self.config),
                seed=SEED,
                name=str(number),
                on_audio=one.take,
                on_end=one.end,
                packets=packets,
            )
            for number, one in enumerate(heard)
        ]
        while batch.step():
            pass
        return heard, [stream.codes for stream in opened]


def measure(
    subject: Subject, *, rows: int, rounds: int, frames: int, graphs: str, packets: tuple[int, ...]
) -> dict[str, Any]:
    """All rows of one batch speak, again and again: figures as JSON has them, times in ms."""
    if subject.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(subject.device)
    batch = subject.batch(rows, frames, graphs)
    subject.say(batch, rows, packets)  # the first one warms up
    ttfa_ms: list[float] = []
    rtf: list[float] = []
    digests = set()
    codes: list[list[list[int]]] = []
    for _ in range(rounds):
        heard, codes = subject.say(batch, rows, packets)
        ttfa_ms += [one.arrived_s[0] * 1000 for one in heard]
        rtf += [one.arrived_s[-1] / (len(stream) * FRAME_S) for one, stream in zip(heard, codes, strict=True)]
        digests.add(hashlib.sha256(json.dumps(codes).encode()).hexdigest())
    return {
        "streams": rows,
        "graphs": graphs,
        "packets": list(packets),
        "n": len(ttfa_ms),
        "ttfa_ms": spread(ttfa_ms),
        "rtf": spread(rtf),
        "same_codes_each_time": len(digests) == 1,
        "codes_sha256": sorted(digests)[0],
        "snr_to_whole_db": snr_to_whole_db(subject, codes[0], heard[0]),
        "parts_ms": {name: timed_ms(subject.device, work) for name, work in parts(batch, subject).items()},
        "launches": launches(batch, subject),
        "replays": {graphed.name: graphed.replays for graphed in batch.graphed},
        "misses": {graphed.name: dict(graphed.misses) for graphed in batch.graphed},
        "peak_mib": torch.cuda.max_memory_allocated(subject.device) / 2**20 if subject.device.type == "cuda" else None,
    }


def snr_to_whole_db(subject: Subject, codes: list[list[int]], heard: Heard) -> float:
    """Of what was heard to the same codes decoded at once."""
    with torch.inference_mode():
        given = torch.tensor(codes, device=subject.device).T[None]
        whole = subject.decoder.decode(given)[0].cpu().double()
    return snr_db(whole, torch.cat(heard.audio).double())


def parts(batch: Batch, subject: Subject) -> dict[str, Callable[[], object]]:
    """What a frame is made of, each alone, for rows that rest; the decoder for one frame and for a packet of twelve."""
    rows, device = batch.rows, subject.device
    number = torch.zeros(rows, dtype=torch.int64, device=device)
    nobody = torch.zeros(rows, dtype=torch.bool, device=device)
    one, twelve = (
        torch.zeros(rows, subject.config.codebooks, frames, dtype=torch.int64, device=device) for frames in (1, 12)
    )
    return {
        "talker": lambda: batch.read(number, number + len(subject.opening), nobody),
        "predictor": lambda: batch.choose(number, number, nobody),
        "decoder, 1": lambda: batch.decode(one, nobody),
        "decoder, 12": lambda: batch.decode(twelve, nobody),
    }


def timed_ms(device: torch.device, work: Callable[[], object]) -> float:
    """The median of a few times."""
    times = 20 if device.type == "cuda" else 3  # a CPU takes seconds for a frame
    took_ms = []
    with torch.inference_mode():
        for _ in range(times):
            wait_for(device)
            began_s = time.perf_counter()
            work()
            wait_for(device)
            took_ms.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(took_ms)


def launches(batch: Batch, subject: Subject) -> dict[str, int] | None:
    """How many kernels and graphs a frame of each part starts; None on a CPU, which starts none."""
    if subject.device.type != "cuda":
        return None
    counted = {}
    for name, work in parts(batch, subject).items():
        with torch.inference_mode(), torch.profiler.profile() as profile:
            work()
            wait_for(subject.device)
        counted[name] = sum(event.count for event in profile.key_averages() if event.key in LAUNCHES)
    return counted


def graphs_are_exact(subject: Subject, frames: int) -> bool:
    """Whether codes and audio with graphs are, bit for bit, those of the same steps run eagerly."""
    said = [subject.say(subject.batch(1, frames, graphs), 1, RAMP) for graphs in GRAPHS]
    (eager, eager_codes), *graphed = said
    audio = torch.cat(eager[0].audio)
    return all(codes == eager_codes and torch.equal(torch.cat(heard[0].audio), audio) for heard, codes in graphed)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p95": ordered[math.ceil(0.95 * len(ordered)) - 1], "max": ordered[-1]}


def show(report: dict[str, Any]) -> None:
    is_random = report["weights"] == "random"
    name = f"{report['size']}, random weights" if is_random else report["weights"]
    print(f"Qwen3-TTS {name}, {report['dtype']}, quantization {report['quantization']}, {report['device']}")
    if (drifts := report["drift"]) is not None:
        show_drift(report["quantization"], drifts)
    titles = f"{'TTFA ms P50':>12} {'P95':>8} {'RTF P50':>8} {'P95':>6} {'SNR dB':>7}"
    print(f"{'streams':>7} {'':10} {'packets':>10} {'n':>4} {titles}")
    for one in report["runs"]:
        packets = "ramp" if len(one["packets"]) > 1 else str(one["packets"][0])
        print(
            f"{one['streams']:>7} {one['graphs']:10} {packets:>10} {one['n']:>4} "
            f"{one['ttfa_ms']['p50']:>12.1f} {one['ttfa_ms']['p95']:>8.1f} {one['rtf']['p50']:>8.3f} "
            f"{one['rtf']['p95']:>6.3f} {one['snr_to_whole_db']:>7.1f}"
        )
        print(f"{'':19}" + ", ".join(f"{part} {took_ms:.2f} ms" for part, took_ms in one["parts_ms"].items()))
        if one["launches"] is not None:
            launches = ", ".join(f"{part} {count}" for part, count in one["launches"].items())
            print(f"{'':19}launches: {launches}; memory: {one['peak_mib']:.0f} MiB")
    for name, value in report["checks"].items():
        print(f"{name}: {'yes' if value else 'NO'}")
    print("published elsewhere: who, where, TTFA in ms, RTF")
    for anchor in ANCHORS:
        print("  " + "  ".join(f"{cell:22}" for cell in anchor).rstrip())


def show_drift(quantization: str, drifts: dict[str, Any]) -> None:
    print(f"{quantization}, from the same talker without it, on the same past, {drifts['frames']} frames:")
    for network in ("talker", "predictor"):
        one = drifts[network]
        print(
            f"  logits of the {network}, n = {one['n']}: SNR {one['snr_db']:.1f} dB, KL {one['kl_nats']:.2g} nats, "
            f"the same likeliest code {one['same_likeliest']:.1%}"
        )
    print(f"  codes drawn alike {drifts['same_codes']:.1%}, SNR of their sound {drifts['audio_snr_db']:.1f} dB")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m daemons.tts.engines.qwen3.bench", description=__doc__)
    parser.add_argument("--size", choices=("0.6b", "1.7b"), default="0.6b", help="of the random weights")
    parser.add_argument("--weights", default="random", help="random, or the folder of a checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="none", help="of the talker's layers")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8], help="at once")
    parser.add_argument("--rounds", type=int, default=10, help="of each setting")
    parser.add_argument("--frames", type=int, default=75, help="of 80 ms, of each stream")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too; - is stdout, without the table")
    asked = parser.parse_args()
    if min(*asked.streams, asked.rounds, asked.frames) < 1:
        parser.error("--streams, --rounds and --frames are at least 1")
    device = torch.device(asked.device)
    dtype = getattr(torch, asked.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    folder = None if asked.weights == "random" else Path(asked.weights)
    exact_float32()
    try:
        subject = Subject(asked.size, folder, device, dtype, asked.quantization)
    except ConfigurationError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    drifts = None if asked.quantization == "none" else subject.drift(asked.frames)
    has_graphs = device.type == "cuda"
    runs = []
    for streams in asked.streams:
        for graphs in GRAPHS if has_graphs else ("eager",):
            for packets in (RAMP, (2,)):
                print(f"{streams} streams, {graphs}, packets {packets}", file=sys.stderr)
                runs.append(
                    measure(
                        subject, rows=streams, rounds=asked.rounds, frames=asked.frames, graphs=graphs, packets=packets
                    )
                )
    checks = {"the same codes each time": all(run["same_codes_each_time"] for run in runs)}
    if has_graphs:
        checks["graphs are bit for bit what eager steps are"] = graphs_are_exact(subject, asked.frames)
    report = {
        "size": asked.size,
        "weights": asked.weights,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if has_graphs else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "quantization": asked.quantization,
        "drift": drifts,
        "runs": runs,
        "checks": checks,
    }
    if asked.json == "-":
        print(json.dumps(report, indent=1))
    else:
        show(report)
        if asked.json:
            Path(asked.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from daemons.errors import BadRequest, ConfigurationError
from daemons.llm.engine import gguf_in, llamacpp
from daemons.llm.engines.llamacpp import LlamaCpp
from daemons.llm.generation import ChatMessage, Generated, Generation
from daemons.llm.threaded import BlockingEngine
from daemons.settings import Settings
from tests.llm.conftest import SMALL_MODEL

pytestmark = pytest.mark.integration

CONTEXT_TOKENS = 1024
QUESTION = Generation(
    messages=[
        ChatMessage("system", "You answer in one sentence."),
        ChatMessage("user", "What is the capital of France?"),
    ],
    max_tokens=30,
    temperature=0.0,
    top_p=1.0,
    repeat_penalty=1.0,
    stop=[],
    seed=1,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[BlockingEngine]:
    given = Settings(llm_model=SMALL_MODEL, slots=1, direct_slots=1, llm_context_tokens=CONTEXT_TOKENS)
    engine = llamacpp(given)
    engine.load()
    yield engine
    engine.close()


def run(
    engine: BlockingEngine, generation: Generation, slot: int = 0, stop_after: int = 10**6
) -> tuple[str, Generated]:
    """The text, and how it ended; stopped after so many calls of `emit`."""
    pieces: list[str] = []

    def emit(text: str) -> bool:
        pieces.append(text)
        return len(pieces) >= stop_after

    generated = engine.generate(slot, generation, emit)
    return "".join(pieces), generated


def said(*turns: tuple[str, str]) -> Generation:
    messages = [QUESTION.messages[0]]
    messages += [ChatMessage("user" if role == "user" else "assistant", text) for role, text in turns]
    return replace(QUESTION, messages=messages)


def test_it_answers(engine: BlockingEngine) -> None:
    text, generated = run(engine, QUESTION)
    assert "Paris" in text
    assert generated.reason == "stop"
    assert generated.completion_tokens > 3


def test_nobody_can_connect_to_it(engine: BlockingEngine) -> None:
    process = psutil.Process()
    assert not [at for at in process.net_connections("inet") if at.status == psutil.CONN_LISTEN]
    names = [str(at.laddr) for at in process.net_connections("unix") if "callbox-llm" in str(at.laddr)]
    assert len(names) == 1  # it does listen
    assert not Path(names[0]).exists()


def test_a_turn_costs_only_its_new_tokens(engine: BlockingEngine) -> None:
    first = said(("user", "My name is Anna. Hello!"))
    text, _ = run(engine, first)
    second = said(("user", "My name is Anna. Hello!"), ("assistant", text), ("user", "And again, hello."))
    _, generated = run(engine, second)
    assert generated.prompt_tokens - generated.cached_tokens < 30
    assert generated.cached_tokens > 0.5 * generated.prompt_tokens
    _, elsewhere = run(engine, second, slot=1)
    assert elsewhere.cached_tokens < generated.cached_tokens


def test_a_prompt_can_be_read_before_it_is_needed(engine: BlockingEngine) -> None:
    turn = said(("user", "Tell me about the weather in the mountains."))
    text, read = run(engine, replace(turn, max_tokens=0))
    assert (text, read.completion_tokens) == ("", 0)
    _, generated = run(engine, turn)
    assert generated.cached_tokens == generated.prompt_tokens - 1


def test_a_stop_ends_the_answer_before_it(engine: BlockingEngine) -> None:
    text, generated = run(engine, replace(QUESTION, stop=["Paris"]))
    assert "France" in text
    assert "Paris" not in text
    assert generated.reason == "stop"


def test_max_tokens_is_the_length(engine: BlockingEngine) -> None:
    _, generated = run(engine, replace(QUESTION, max_tokens=3))
    assert (generated.reason, generated.completion_tokens) == ("length", 3)


def test_the_same_seed_says_the_same(engine: BlockingEngine) -> None:
    poem = replace(said(("user", "Write a poem.")), temperature=1.0)
    texts = [run(engine, replace(poem, seed=seed))[0] for seed in (7, 7, 7, 8)]
    assert texts[1] == texts[2]  # both from a cached prompt: a cold one differs in the last bits
    assert texts[3] != texts[2]


def test_a_cancelled_answer_stops_within_a_token_and_the_slot_is_free(engine: BlockingEngine) -> None:
    story = replace(said(("user", "Count from one to one thousand.")), max_tokens=800)
    started = time.monotonic()
    _, generated = run(engine, story, stop_after=10)
    assert generated.reason == "cancelled"
    stopped_s = time.monotonic() - started
    _, generated = run(engine, replace(QUESTION, max_tokens=2))
    assert generated.completion_tokens == 2
    assert time.monotonic() - started < stopped_s + 5


def test_a_long_prompt_can_be_cancelled_while_it_is_read(engine: BlockingEngine) -> None:
    long = said(("user", "word " * 800))
    text, generated = run(engine, long, stop_after=2)
    assert (text, generated.reason) == ("", "cancelled")


def test_a_prompt_that_does_not_fit_is_refused(engine: BlockingEngine) -> None:
    with pytest.raises(BadRequest, match=str(CONTEXT_TOKENS)):
        run(engine, said(("user", "word " * 2 * CONTEXT_TOKENS)))


def test_what_the_listener_raises_is_raised_here(engine: BlockingEngine) -> None:
    def fail(_: str) -> bool:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        engine.generate(0, QUESTION, fail)


def test_two_slots_answer_side_by_side(engine: BlockingEngine) -> None:
    answers: dict[int, str] = {}

    def ask(slot: int) -> None:
        answers[slot], _ = run(engine, QUESTION, slot)

    threads = [threading.Thread(target=ask, args=(slot,)) for slot in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all("Paris" in answers[slot] for slot in (0, 1))


def test_a_file_that_is_no_model_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"this is no model")
    with pytest.raises(ConfigurationError, match=r"broken\.gguf"):
        LlamaCpp(broken, slots=1, context_tokens=512, threads=1).load()


def test_a_folder_must_hold_one_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds 0"):
        gguf_in(tmp_path)
    (tmp_path / "a.gguf").touch()
    assert gguf_in(tmp_path) == gguf_in(tmp_path / "a.gguf") == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ConfigurationError, match="holds 2"):
        gguf_in(tmp_path)

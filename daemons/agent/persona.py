"""Who the agent is: `etc/persona.toml`, read anew for each call."""

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemons.agent.ending import Waits
from daemons.errors import ConfigurationError

Phrase = Annotated[str, Field(min_length=1, max_length=500)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(_Section):
    """One turn shown to the model before the call's own."""

    caller: Phrase
    agent: Phrase


class Writing(_Section):
    """How the language model is asked."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    repeat_penalty: Annotated[float, Field(ge=0.5, le=2)] = 1.1
    max_tokens: Annotated[int, Field(ge=1, le=2000)] = 150
    max_sentences: Annotated[int, Field(ge=1, le=50)] = 2
    history_turns: Annotated[int, Field(ge=0, le=200)] = 12


class Turns(_Section):
    """When the caller is answered."""

    speculation: bool = True  # replies are prepared before the caller's turn is surely over
    shortest_ms: Annotated[int, Field(ge=100, le=3000)] = 200  # silence that ends a turn that sounds finished
    longest_ms: Annotated[int, Field(ge=100, le=5000)] = 1500  # and one that does not

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.shortest_ms > self.longest_ms:
            raise ValueError("shortest_ms is longer than longest_ms")
        return self

    @property
    def waits(self) -> Waits:
        return Waits(self.shortest_ms, self.longest_ms)


class Phrases(_Section):
    """What the agent says without asking the model."""

    no_answer: Phrase
    hold: Annotated[tuple[Phrase, ...], Field(min_length=1)]  # one after the other, while a worker is being replaced
    still_there: Phrase  # asked once, when nobody has spoken for idle_s
    goodbye: Phrase  # said when nobody has answered that for as long again


class Persona(_Section):
    greeting: Phrase
    instructions: Annotated[str, Field(min_length=1, max_length=4000)]
    examples: tuple[Example, ...] = ()
    writing: Writing = Writing()
    turns: Turns = Turns()
    phrases: Phrases


def load(path: Path) -> Persona:
    """Raises ConfigurationError when the file is missing or wrong, naming what and where."""
    try:
        return Persona.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(at) for at in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"{path}: {problems}") from None

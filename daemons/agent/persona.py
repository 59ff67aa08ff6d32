"""Who the agent is: `etc/persona.toml`, read anew for each call."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class Phrases(_Section):
    """What the agent says without asking the model."""

    no_answer: Phrase


class Persona(_Section):
    greeting: Phrase
    instructions: Annotated[str, Field(min_length=1, max_length=4000)]
    examples: tuple[Example, ...] = ()
    writing: Writing = Writing()
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

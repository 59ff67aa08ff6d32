"""The registry's scripts, each with one rule broken on purpose, and the tests that must notice.

A mutant replaces one piece of one script. A rule without a mutant here is a rule that nobody has shown to be tested.
"""

from tests.registry.mutants.adoption import ADOPTION
from tests.registry.mutants.calls import ENDINGS, SLOTS, SWAP
from tests.registry.mutants.demo import REGRESSIONS
from tests.registry.mutants.mutant import Mutant, Test
from tests.registry.mutants.queue import QUEUE
from tests.registry.mutants.telling import TELLING
from tests.registry.mutants.time_and_fences import CLOCK, FENCES
from tests.registry.mutants.workers import WORKERS

MUTANTS = (*REGRESSIONS, *CLOCK, *FENCES, *SLOTS, *ENDINGS, *SWAP, *ADOPTION, *QUEUE, *WORKERS, *TELLING)

__all__ = ["MUTANTS", "REGRESSIONS", "Mutant", "Test"]

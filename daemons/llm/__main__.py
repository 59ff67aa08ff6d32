from daemons.llm.server import LlmService
from daemons.runtime import main

main(LlmService)

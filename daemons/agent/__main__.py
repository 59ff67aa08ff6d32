from daemons.agent.worker import Agent
from daemons.runtime import main

main(Agent)

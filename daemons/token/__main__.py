from daemons.runtime import main
from daemons.token.server import TokenServer

main(TokenServer)

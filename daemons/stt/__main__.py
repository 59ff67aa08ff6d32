from daemons.runtime import main
from daemons.stt.server import SttService

main(SttService)

from daemons.runtime import main
from daemons.tts.server import TtsService

main(TtsService)

from daemons.monitor.server import Monitor
from daemons.runtime import main

main(lambda runtime: Monitor(runtime.registry, runtime.metrics, runtime.settings.call_roles))

"""The listener with shorter waits between starts: `python -m tests.monitor.quick_listener DAEMON...`."""

import sys

from daemons.monitor import listener, recovery

WELL_S = 4.0

if __name__ == "__main__":
    recovery.FATAL_FIRST_S = recovery.FATAL_MOST_S = recovery.LOOP_FIRST_S = recovery.LOOP_MOST_S = 3.0
    recovery.WELL_S = WELL_S
    listener.main(sys.argv[1:])

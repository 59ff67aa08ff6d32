"""Every key and channel of the registry. One hash tag keeps them in one slot of a Redis Cluster."""

SYS = "{callbox}:sys"  # hash: v and last (the virtual clock), seq, fence, run
WORKERS = "{callbox}:ws"  # zset: registered worker → its last heartbeat
GONE = "{callbox}:gone"  # zset: worker that is no more → since when
QUEUE = "{callbox}:q"  # zset: waiting call → ticket number
DEADLINES = "{callbox}:x"  # zset: call → when its ticket, reservation or lease ends
ENDED = "{callbox}:e"  # zset: "call/fence" of a grant that is over → since when
EVENTS = "{callbox}:ev"  # stream: the audit log

# Prefixes: a worker's or a call's name follows
WORKER = "{callbox}:w:"  # hash: boot role addr slots state ready hb ok bad granted meta
SLOTS = "{callbox}:s:"  # hash: leased slot → JSON {call, fence, boot}
FENCES = "{callbox}:f:"  # hash: slot → highest fence it was ever leased under
RETIRED = "{callbox}:r:"  # zset: boot that may never come back → since when
CALL = "{callbox}:c:"  # hash: state roles fence bundle expires ticket since swapped
WAKE = "{callbox}:wake:"  # channel: something about this worker's leases has changed

# What every script gets as KEYS, in the order in which _records.lua names them
SCRIPT_KEYS = (SYS, WORKERS, GONE, QUEUE, DEADLINES, ENDED, EVENTS, WORKER, SLOTS, FENCES, RETIRED, CALL, WAKE)

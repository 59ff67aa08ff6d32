"""The audit log and the wake-ups, broken."""

from functools import partial

from tests.registry import test_audit, test_wakeups
from tests.registry.mutants.mutant import Mutant

AGENT_HEARS = test_wakeups.test_an_agent_hears_at_once_that_a_member_must_be_replaced

TELLING = (
    Mutant(
        "a refusal leaves no trace",
        "acquire",
        "    log('refused', {call = id, why = 'full'})\n",
        "",
        (test_audit.test_how_a_call_fares,),
    ),
    Mutant(
        "a ticket that ran out is told as a lost call",
        "_leases",
        "c.state == 'HELD' and 'lost' or 'expired'",
        "'lost'",
        (test_audit.test_how_a_call_fares,),
    ),
    Mutant(
        "a reservation that goes back leaves no trace",
        "_leases",
        "    log('queued', {call = c.call, why = why})\n",
        "",
        (test_audit.test_a_reservation_that_goes_back_says_why,),
    ),
    Mutant(
        "a retired boot leaves no trace",
        "register",
        "    log('retired', {worker = worker, role = before.role, boot = before.boot, was = before.state})\n",
        "",
        (test_audit.test_how_a_worker_fares,),
    ),
    Mutant(
        "an adoption leaves no trace",
        "adopt",
        "log('adopted', {call = id, fence = fence})\n",
        "",
        (test_audit.test_what_a_holder_gives_back_and_what_others_note,),
    ),
    Mutant(
        "a note leaves no trace",
        "note",
        "log(ARGV[2], cjson.decode(ARGV[3]))\n",
        "",
        (test_audit.test_what_a_holder_gives_back_and_what_others_note,),
    ),
    Mutant(
        "reap does not say which calls it ended",
        "_leases",
        "        ended_calls[#ended_calls + 1] = id\n",
        "",
        (test_audit.test_reap_says_what_it_has_ended,),
    ),
    Mutant(
        "reap does not say which workers are gone",
        "_leases",
        "            gone_workers[#gone_workers + 1] = worker\n",
        "",
        (test_audit.test_reap_says_what_it_has_ended,),
    ),
    Mutant(
        "nobody wakes the agent of a member that drains",
        "drain",
        "        wake(c.bundle)\n",
        "",
        (partial(AGENT_HEARS, end=test_wakeups.drain),),
    ),
    Mutant(
        "nobody wakes the agent of a member that is revoked",
        "_leases",
        "fence = entry.fence, why = why})\n        wake(c.bundle)\n",
        "fence = entry.fence, why = why})\n",
        (partial(AGENT_HEARS, end=test_wakeups.deregister), partial(AGENT_HEARS, end=test_wakeups.restart)),
    ),
)

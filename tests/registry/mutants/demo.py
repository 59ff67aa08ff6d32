"""The demo's faults, as far as a script can have them; each fails its own regression test and no other of them."""

from tests.registry import test_regressions
from tests.registry.mutants.mutant import Mutant

REGRESSIONS = (
    Mutant(
        "register over BUSY",
        "register",
        "if registered(worker, boot) then\n    beat(worker)",
        "if registered(worker, boot) then\n    redis.call('DEL', SLOTS .. worker)\n    beat(worker)",
        (test_regressions.test_register_over_busy_keeps_the_lease,),
    ),
    Mutant(
        "two logins that both win the lock",
        "_leases",
        "redis.call('HLEN', SLOTS .. worker) < w.slots",
        "redis.call('HLEN', SLOTS .. worker) <= w.slots",
        (test_regressions.test_two_logins_never_both_win_the_lock,),
    ),
    Mutant(
        "a probe that erases a fresh lease",
        "probe",
        "    w.ok, w.bad = w.ok + 1, 0",
        "    w.ok, w.bad = w.ok + 1, 0\n    redis.call('DEL', SLOTS .. worker)",
        (test_regressions.test_a_probe_erases_no_fresh_lease,),
    ),
    Mutant(
        "a stolen lock unnoticed because the holder is not checked",
        "renew",
        "local c = held(ARGV[2], ARGV[3])",
        "local c = load_call(ARGV[2])",
        (test_regressions.test_a_stolen_lock_is_noticed_since_its_holder_is_checked,),
    ),
    Mutant(
        "one failed probe that drops a live call",
        "probe",
        "    w.ok, w.bad = 0, w.bad + 1",
        "    w.ok, w.bad = 0, w.bad + 1\n    to_gone(w, 'one bad probe')",
        (test_regressions.test_one_failed_probe_drops_no_live_call,),
    ),
    Mutant(
        "logout by a stranger that frees another's slot",
        "release",
        "local c = held(ARGV[2], ARGV[3])",
        "local c = load_call(ARGV[2])",
        (test_regressions.test_a_logout_by_a_stranger_frees_nobodys_slot,),
    ),
    Mutant(
        "a disconnect that frees nothing",
        "release",
        "if c then",
        "if nil then",
        (test_regressions.test_a_disconnect_frees_the_slot,),
    ),
)

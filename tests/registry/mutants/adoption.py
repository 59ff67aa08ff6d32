"""What a holder may give back, broken."""

from tests.registry import test_adoption, test_leases
from tests.registry.mutants.mutant import Mutant

ADOPTION = (
    Mutant(
        "a slot beyond the worker's last is adopted",
        "adopt",
        "member.slot >= w.slots) then",
        "member.slot > w.slots) then",
        (test_adoption.test_adopt_leaves_a_slot_that_the_worker_does_not_have_to_swap,),
    ),
    Mutant(
        "an expected worker has more slots than are known of",
        "adopt",
        "slots = member.slot + 1, state = 'EXPECTED'",
        "slots = member.slot + 2, state = 'EXPECTED'",
        (test_adoption.test_an_expected_worker_serves_nobody_yet,),
    ),
    Mutant(
        "an adoption that is asked for again does not count",
        "adopt",
        "    prolong(c, now + ttl_ms)\n",
        "",
        (test_adoption.test_adopt_prolongs_what_is_held_already,),
    ),
    Mutant(
        "adopt takes another call's slot",
        "adopt",
        "(entry and entry.call ~= id) or ",
        "",
        (test_leases.test_adopt_never_takes_a_slot_that_another_holds,),
    ),
    Mutant(
        "adopt lowers a slot's fence",
        "adopt",
        "or top > member.fence",
        "",
        (test_adoption.test_adopt_takes_no_slot_below_its_highest_fence,),
    ),
    Mutant(
        "a member that restarted is adopted",
        "adopt",
        "w.boot ~= member.boot or ",
        "",
        (test_leases.test_adopt_leaves_a_member_that_restarted_to_swap,),
    ),
    Mutant(
        "a member that is gone is adopted",
        "adopt",
        " or w.state == 'GONE'",
        "",
        (test_adoption.test_adopt_leaves_a_member_that_is_gone_to_swap,),
    ),
    Mutant(
        "a member on a retired boot is adopted",
        "adopt",
        "redis.call('ZSCORE', RETIRED .. member.worker, member.boot)\n        or ",
        "",
        (test_adoption.test_adopt_leaves_a_member_on_a_retired_boot_to_swap,),
    ),
    Mutant(
        "adopt brings back the call of an agent that has a successor",
        "adopt",
        " or (verdict == 'DEAD' and role == HOLDER)",
        "",
        (test_leases.test_adopt_by_an_agent_that_has_a_successor_is_refused,),
    ),
    Mutant(
        "a newer grant of the call gives way to the one that is adopted",
        "adopt",
        "if c.fence ~= fence then",
        "if false then",
        (test_adoption.test_adopt_never_replaces_another_grant_of_the_call,),
    ),
    Mutant(
        "adopt over a ticket or a reservation leaks what was reserved",
        "adopt",
        "    free_all(c)\n",
        "",
        (test_adoption.test_adopt_gives_back_what_was_reserved_for_the_call_meanwhile,),
    ),
    Mutant(
        "a worker that is adopted registers as if nothing were missing",
        "_records",
        " and w.state ~= 'EXPECTED' then",
        " then",
        (test_leases.test_a_registry_that_lost_its_data_is_told_what_is_held,),
    ),
    Mutant(
        "a slot that the worker does not have stays leased",
        "register",
        "if slot >= w.slots then",
        "if false then",
        (test_leases.test_an_adopted_slot_that_the_worker_does_not_have_is_revoked,),
    ),
)

"""The virtual clock, the sequence of scripts and the counter of fences, broken."""

from functools import partial

from tests.registry import test_adoption, test_client, test_clock, test_leases, test_slots
from tests.registry.mutants.mutant import Mutant

CLOCK = (
    Mutant(
        "time may jump forward",
        "_records",
        "math.max(0, math.min(real - tonumber(kept[2] or real), MAX_STEP_MS))",
        "math.max(0, real - tonumber(kept[2] or real))",
        (
            test_clock.test_a_jump_forward_costs_two_seconds,
            test_clock.test_an_outage_extends_leases_instead_of_dropping_them_all,
        ),
    ),
    Mutant(
        "time may fall",
        "_records",
        "math.max(0, math.min(real - tonumber(kept[2] or real), MAX_STEP_MS))",
        "math.min(real - tonumber(kept[2] or real), MAX_STEP_MS)",
        (test_clock.test_a_jump_back_costs_a_standstill,),
    ),
    Mutant(
        "after a jump back time stands until the old time is reached",
        "_records",
        "'last', int(real)",
        "'last', int(math.max(real, tonumber(kept[2] or real)))",
        (test_clock.test_a_jump_back_costs_a_standstill,),
    ),
    Mutant(
        "a script takes no place in the sequence",
        "_records",
        "seq = tonumber(kept[3] or 0) + 1",
        "seq = tonumber(kept[3] or 1)",
        (test_client.test_every_script_has_its_place_in_one_sequence,),
    ),
)

FENCES = (
    Mutant(
        "fences do not rise",
        "_records",
        "raise_fence(last_fence + 1)",
        "raise_fence(1)",
        (test_leases.test_only_the_owner_renews_or_releases,),
    ),
    Mutant(
        "a worker that has seen less lowers the fence",
        "_records",
        "if least > last_fence then",
        "if true then",
        (test_slots.test_nobody_lowers_the_counter,),
    ),
    Mutant(
        "a worker's highest fence is not heeded",
        "register",
        "raise_fence(tonumber(max_fence))",
        "",
        (test_leases.test_fences_survive_a_loss_of_data,),
    ),
    Mutant(
        "an adopted call's fence is not heeded",
        "adopt",
        "raise_fence(fence)",
        "",
        (partial(test_leases.test_what_is_adopted_raises_the_counter, call_fence=50, member_fence=8),),
    ),
    Mutant(
        "an adopted member's fence is not heeded",
        "adopt",
        "raise_fence(bundle[role].fence)",
        "",
        (partial(test_leases.test_what_is_adopted_raises_the_counter, call_fence=8, member_fence=50),),
    ),
    Mutant(
        "another Redis goes on counting where this one stood",
        "_records",
        "last_fence = last_fence + EPOCH_FENCES",
        "",
        (test_client.test_another_redis_may_lack_the_last_grants_so_fences_leap,),
    ),
    Mutant(
        "every grant takes Redis for another",
        "_records",
        "if run_id and run ~= run_id then",
        "if run_id then",
        (test_slots.test_fences_leap_once_for_each_new_redis,),
    ),
    Mutant(
        "another Redis stays another for ever",
        "_records",
        "redis.call('HSET', SYS, 'run', run)",
        "",
        (test_slots.test_fences_leap_once_for_each_new_redis,),
    ),
    Mutant(
        "a slot forgets the highest fence that it was leased under",
        "_records",
        "redis.call('HSET', FENCES .. member.worker, int(member.slot), int(member.fence))",
        "",
        (test_adoption.test_adopt_takes_no_slot_below_its_highest_fence,),
    ),
    Mutant(
        "a swapped-in member inherits the call's fence",
        "swap",
        "lease(c.call, w, next_fence())",
        "lease(c.call, w, c.fence)",
        (test_leases.test_swap_replaces_one_member_under_a_higher_fence,),
    ),
)

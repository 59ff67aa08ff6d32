"""The registry's scripts, each with one rule broken on purpose, and the tests that must notice.

A mutant replaces one piece of one script. A rule without a mutant here is a rule that nobody has shown to be tested.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tests.registry import (
    test_adoption,
    test_client,
    test_clock,
    test_leases,
    test_queue,
    test_regressions,
    test_slots,
    test_workers,
)

Test = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Mutant:
    """`old` stands exactly once in the script. Every test of `caught_by` fails when `new` stands there instead."""

    name: str
    script: str
    old: str
    new: str
    caught_by: tuple[Test, ...]


# The demo's nine faults, as far as they can be had in a script; each fails its own regression test and no other of them
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

SLOTS = (
    Mutant(
        "two leases on one slot",
        "_leases",
        "    while load_slot(w.worker, slot) do\n        slot = slot + 1\n    end\n",
        "",
        (test_slots.test_each_lease_has_a_slot_of_its_own,),
    ),
    Mutant(
        "more leases than slots",
        "_leases",
        "redis.call('HLEN', SLOTS .. worker) < w.slots",
        "redis.call('HLEN', SLOTS .. worker) <= w.slots",
        (test_queue.test_positions_count_from_one_and_stay, test_client.test_random_lives_never_break_an_invariant),
    ),
    Mutant(
        "some roles instead of all",
        "_leases",
        "chosen[role] = pick(role)",
        "chosen[role] = pick(role)\n        if chosen[role] then lease(c.call, chosen[role], next_fence()) end",
        (test_leases.test_all_roles_or_none,),
    ),
    Mutant(
        "the most recently granted worker is next",
        "_leases",
        "w.granted < best.granted",
        "w.granted > best.granted",
        (test_leases.test_the_least_recently_granted_worker_is_next,),
    ),
    Mutant(
        "a worker that restarts is first in line",
        "register",
        "granted = before and before.granted,",
        "",
        (test_leases.test_a_worker_that_restarts_is_not_first_in_line_again,),
    ),
    Mutant(
        "a grant that is asked for again is another grant",
        "acquire",
        "local c = load_call(id)\nlocal is_new",
        "local c\nlocal is_new",
        (test_leases.test_asked_again_the_same_answer_and_no_longer_lease,),
    ),
    Mutant(
        "asking again prolongs the lease",
        "acquire",
        "if c.state == 'HELD' then\n",
        "if c.state == 'HELD' then\n    prolong(c, now + ttl_ms)\n",
        (test_leases.test_asked_again_the_same_answer_and_no_longer_lease,),
    ),
    Mutant(
        "who queues for a role that nobody serves waits for ever",
        "acquire",
        "if not role or not is_new then",
        "if true then",
        (test_leases.test_unavailable_names_the_role_and_queues_nobody,),
    ),
    Mutant(
        "an expected worker counts as one that serves",
        "acquire",
        "present[w.role] = present[w.role] or w.state ~= 'EXPECTED'",
        "present[w.role] = true",
        (test_adoption.test_an_expected_worker_serves_nobody_yet,),
    ),
)

ENDINGS = (
    Mutant(
        "a renewal does not count",
        "renew",
        "prolong(c, now + tonumber(ARGV[4]))",
        "",
        (test_leases.test_a_lease_ends_when_nobody_renews_it,),
    ),
    Mutant(
        "a lease that ran out stays",
        "_leases",
        "redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', int(now))",
        "{}",
        (
            test_leases.test_a_lease_ends_when_nobody_renews_it,
            test_leases.test_an_agents_crash_leaks_no_slot_for_more_than_16_s,
            test_queue.test_a_lease_that_runs_out_serves_the_queue,
        ),
    ),
    Mutant(
        "a lease lives a script longer than it was given",
        "_leases",
        "'-inf', int(now))) do\n        local c = load_call(id)",
        "'-inf', '(' .. int(now))) do\n        local c = load_call(id)",
        (test_leases.test_a_lease_ends_when_nobody_renews_it,),
    ),
    Mutant(
        "the end of a call leaks its slots",
        "_leases",
        "local function end_call(c, kind, why)\n    free_all(c)",
        "local function end_call(c, kind, why)",
        (test_leases.test_only_the_owner_renews_or_releases,),
    ),
    Mutant(
        "an ended grant is forgotten at once",
        "_leases",
        "        remember_end(c.call, c.fence)\n",
        "",
        (test_leases.test_a_grant_that_the_registry_ended_is_not_adopted_back,),
    ),
    Mutant(
        "an ended grant may be adopted back",
        "adopt",
        "if has_ended(id, fence) then",
        "if false then",
        (test_leases.test_a_grant_that_the_registry_ended_is_not_adopted_back,),
    ),
    Mutant(
        "an ended grant bars its call for ever",
        "_leases",
        "redis.call('ZREMRANGEBYSCORE', ENDED, '-inf', int(now - ENDED_MS))",
        "",
        (test_leases.test_ended_grants_are_forgotten,),
    ),
    Mutant(
        "an ended grant is remembered for less long than a holder may believe in it",
        "_records",
        "ENDED_MS = 60000",
        "ENDED_MS = 10000",
        (test_adoption.test_an_ended_grant_is_remembered_for_a_minute,),
    ),
)

SWAP = (
    Mutant(
        "a stranger swaps",
        "swap",
        "local c = held(ARGV[2], ARGV[3])",
        "local c = load_call(ARGV[2])",
        (test_leases.test_only_the_owner_renews_or_releases,),
    ),
    Mutant(
        "a swap that is asked for again takes another worker",
        "swap",
        "if swapped[role] and",
        "if false and",
        (test_leases.test_a_lost_reply_to_swap_costs_nothing,),
    ),
    Mutant(
        "a second swap gets the first one's answer",
        "renew",
        "redis.call('HDEL', CALL .. c.call, 'swapped')",
        "",
        (test_leases.test_a_lost_reply_to_swap_costs_nothing,),
    ),
    Mutant(
        "a swapped-in member that died is given again",
        "swap",
        "swapped[role] and holds(c.call, old) and load_worker(old.worker).state ~= 'DRAINING'",
        "swapped[role] and load_worker(old.worker).state ~= 'DRAINING'",
        (test_leases.test_a_swapped_in_member_that_dies_is_replaced_at_once,),
    ),
    Mutant(
        "a swapped-in member that drains is given again",
        "swap",
        "holds(c.call, old) and load_worker(old.worker).state ~= 'DRAINING'",
        "holds(c.call, old)",
        (test_leases.test_a_swapped_in_member_that_drains_is_replaced_at_once,),
    ),
    Mutant(
        "swap gives the boot that is to be replaced",
        "_leases",
        "and not same and",
        "and",
        (test_leases.test_swap_never_gives_the_same_boot_again,),
    ),
    Mutant(
        "swap leaks the old slot",
        "swap",
        "free(c.call, old)",
        "",
        (test_leases.test_swap_replaces_one_member_under_a_higher_fence,),
    ),
    Mutant(
        "swap waits behind the queue",
        "swap",
        "if not w then",
        "if not w or redis.call('ZCARD', QUEUE) > 0 then",
        (test_leases.test_swap_comes_before_the_queue,),
    ),
    Mutant(
        "a member that drains is not told to move",
        "renew",
        "or load_worker(member.worker).state == 'DRAINING'",
        "",
        (test_leases.test_swap_replaces_one_member_under_a_higher_fence,),
    ),
    Mutant(
        "a member that is gone is not told to move",
        "renew",
        "not holds(c.call, member) or ",
        "",
        (test_leases.test_a_workers_crash_leaks_no_slot_for_more_than_31_s,),
    ),
)

ADOPTION = (
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

QUEUE = (
    Mutant(
        "last come, first served",
        "_leases",
        "redis.call('ZRANGE', QUEUE, 0, 0)",
        "redis.call('ZREVRANGE', QUEUE, 0, 0)",
        (test_queue.test_grants_are_first_come_first_served,),
    ),
    Mutant(
        "who asks passes those who wait",
        "acquire",
        "    hand_off(id, ttl_ms)\n",
        "    if place(c) then hold(c, ttl_ms) end\n",
        (test_queue.test_nobody_passes_a_call_that_waits_for_more,),
    ),
    Mutant(
        "a freed slot waits for the next who asks",
        "_leases",
        "    if capacity_grew then\n        hand_off()\n    end\n    answer.seq",
        "    answer.seq",
        (
            test_queue.test_a_release_hands_the_slot_to_the_head_in_the_same_script,
            test_queue.test_a_worker_that_comes_up_serves_the_queue,
            test_queue.test_cancel_returns_a_reservation,
        ),
    ),
    Mutant(
        "a hand-off is a grant, claimed or not",
        "_leases",
        "c.state, c.expires = 'RESERVED', now + RESERVATION_MS",
        "c.state, c.expires = 'HELD', now + 15000",
        (
            test_queue.test_a_release_hands_the_slot_to_the_head_in_the_same_script,
            test_workers.test_heartbeat_tells_what_is_held_and_hides_what_is_only_reserved,
        ),
    ),
    Mutant(
        "the agent sees a reservation",
        "heartbeat",
        "if c.state == 'HELD' then",
        "if true then",
        (test_workers.test_heartbeat_tells_what_is_held_and_hides_what_is_only_reserved,),
    ),
    Mutant(
        "a reservation that nobody claims stays",
        "_records",
        "RESERVATION_MS = 6000",
        "RESERVATION_MS = 60000",
        (test_queue.test_a_reservation_lasts_six_seconds_and_goes_to_the_next,),
    ),
    Mutant(
        "a reservation is too short to claim",
        "_records",
        "RESERVATION_MS = 6000",
        "RESERVATION_MS = 5000",
        (test_queue.test_a_reservation_lasts_six_seconds_and_goes_to_the_next,),
    ),
    Mutant(
        "a claim does not hold",
        "acquire",
        "    hold(c, ttl_ms)\n",
        "    c.state = 'HELD'\n",
        (test_queue.test_a_claim_at_the_last_moment_counts,),
    ),
    Mutant(
        "a ticket that nobody asks for stays",
        "_records",
        "TICKET_MS = 6000",
        "TICKET_MS = 60000",
        (test_queue.test_a_ticket_lives_six_seconds_after_it_was_asked_for,),
    ),
    Mutant(
        "asking does not keep a ticket alive",
        "acquire",
        "c.expires = now + TICKET_MS",
        "c.expires = c.expires or now + TICKET_MS",
        (test_queue.test_a_ticket_lives_six_seconds_after_it_was_asked_for,),
    ),
    Mutant(
        "the queue holds one more than it may",
        "acquire",
        "position > queue_max",
        "position > queue_max + 1",
        (test_queue.test_the_queue_is_bounded, test_queue.test_without_a_queue_full_comes_at_once),
    ),
    Mutant(
        "who waits is turned away when the queue shrinks",
        "acquire",
        "is_new and position > queue_max",
        "position > queue_max",
        (test_queue.test_the_queue_is_bounded,),
    ),
    Mutant(
        "who was turned away keeps a ticket",
        "acquire",
        "    redis.call('DEL', CALL .. id)\n    redis.call('ZREM', QUEUE, id)\n    redis.call('ZREM', DEADLINES, id)\n",
        "",
        (test_queue.test_the_queue_is_bounded,),
    ),
    Mutant(
        "who waits loses the place while the role is away",
        "acquire",
        "if not role or not is_new then",
        "if not role then",
        (test_queue.test_a_call_that_waits_keeps_its_place_while_its_role_is_away,),
    ),
    Mutant(
        "a reservation that loses its worker goes to the end of the queue",
        "_leases",
        "c.state, c.fence, c.bundle = 'QUEUED', 0, {}",
        "c.state, c.fence, c.bundle, c.ticket = 'QUEUED', 0, {}, seq",
        (partial(test_queue.test_a_reservation_that_loses_its_worker_goes_back_to_the_head, end="deregister"),),
    ),
    Mutant(
        "a reservation on a worker that drains stays there",
        "drain",
        "requeue(c, 'its worker drains')",
        "redis.call('PING')",
        (partial(test_queue.test_a_reservation_that_loses_its_worker_goes_back_to_the_head, end="drain"),),
    ),
    Mutant(
        "cancel ends a call that is held",
        "cancel",
        "if c and c.state ~= 'HELD' then",
        "if c then",
        (test_queue.test_cancel_does_not_end_a_call_that_is_held,),
    ),
)

WORKERS = (
    Mutant(
        "a retired boot returns",
        "register",
        "    redis.call('ZADD', RETIRED .. worker, int(now), before.boot)\n",
        "",
        (test_workers.test_a_retired_boot_never_returns,),
    ),
    Mutant(
        "a successor leaves its predecessor's leases",
        "register",
        "    revoke_all(before, 'its worker has restarted')\n",
        "",
        (test_workers.test_a_new_boot_retires_its_predecessor_and_revokes_its_leases,),
    ),
    Mutant(
        "a worker that said goodbye may not come back",
        "deregister",
        "    to_gone(w, 'deregistered')\n",
        "    to_gone(w, 'deregistered')\n    redis.call('ZADD', RETIRED .. w.worker, int(now), w.boot)\n",
        (test_workers.test_deregister_is_gone_at_once_and_may_come_back,),
    ),
    Mutant(
        "an agent's end leaves its calls",
        "_leases",
        "elseif w.role == HOLDER then",
        "elseif false then",
        (test_workers.test_an_agent_that_restarts_ends_its_calls_with_all_their_slots,),
    ),
    Mutant(
        "REFRESHED writes the record anew",
        "register",
        "    beat(worker)\n    return reply({status = 'REFRESHED'})",
        "    create_worker({worker = worker, boot = boot, role = role, addr = addr, slots = tonumber(slots),"
        " state = 'STARTING', meta = meta})\n    return reply({status = 'REFRESHED'})",
        (test_workers.test_a_repeated_register_writes_the_heartbeat_and_nothing_else,),
    ),
    Mutant(
        "GONE keeps its leases",
        "_leases",
        "    redis.call('ZADD', GONE, int(now), w.worker)\n    revoke_all(w, why)",
        "    redis.call('ZADD', GONE, int(now), w.worker)",
        (
            test_workers.test_silence_makes_unhealthy_then_gone_and_gone_owns_nothing,
            test_workers.test_deregister_is_gone_at_once_and_may_come_back,
            test_leases.test_a_workers_crash_leaks_no_slot_for_more_than_31_s,
            test_client.test_random_lives_never_break_an_invariant,
        ),
    ),
    Mutant(
        "GONE goes on without registering",
        "_records",
        " and w.state ~= 'GONE'",
        "",
        (test_workers.test_silence_makes_unhealthy_then_gone_and_gone_owns_nothing,),
    ),
    Mutant(
        "a silent worker is never GONE",
        "_leases",
        "if now - w.hb > GONE_MS then",
        "if false then",
        (
            test_workers.test_silence_makes_unhealthy_then_gone_and_gone_owns_nothing,
            test_leases.test_a_workers_crash_leaks_no_slot_for_more_than_31_s,
        ),
    ),
    Mutant(
        "a silent worker is GONE when it is only UNHEALTHY",
        "_records",
        "UNHEALTHY_MS, GONE_MS = 10000, 30000",
        "UNHEALTHY_MS, GONE_MS = 10000, 10000",
        (test_workers.test_silence_makes_unhealthy_then_gone_and_gone_owns_nothing,),
    ),
    Mutant(
        "UNHEALTHY by silence loses its leases",
        "_leases",
        "set_state(w, 'UNHEALTHY', 'no heartbeat')",
        "set_state(w, 'UNHEALTHY', 'no heartbeat')\n            revoke_all(w, 'no heartbeat')",
        (test_workers.test_silence_makes_unhealthy_then_gone_and_gone_owns_nothing,),
    ),
    Mutant(
        "UNHEALTHY by probes loses its leases",
        "probe",
        "set_state(w, 'UNHEALTHY', 'probes failed')",
        "set_state(w, 'UNHEALTHY', 'probes failed')\n    revoke_all(w, 'probes failed')",
        (test_workers.test_unhealthy_gets_no_new_leases_and_loses_none,),
    ),
    Mutant(
        "UNHEALTHY gets new leases",
        "_leases",
        "w.state == 'AVAILABLE' and not same",
        "(w.state == 'AVAILABLE' or w.state == 'UNHEALTHY') and not same",
        (test_workers.test_unhealthy_gets_no_new_leases_and_loses_none,),
    ),
    Mutant(
        "DRAINING gets new leases",
        "_leases",
        "w.state == 'AVAILABLE' and not same",
        "(w.state == 'AVAILABLE' or w.state == 'DRAINING') and not same",
        (test_workers.test_draining_gets_no_new_leases_and_is_not_made_available_again,),
    ),
    Mutant(
        "STARTING gets leases",
        "_leases",
        "w.state == 'AVAILABLE' and not same",
        "(w.state == 'AVAILABLE' or w.state == 'STARTING') and not same",
        (test_workers.test_a_worker_starts_and_becomes_available_when_ready,),
    ),
    Mutant(
        "a heartbeat ends a drain",
        "heartbeat",
        "if w.state == 'STARTING' then",
        "if w.state ~= 'AVAILABLE' then",
        (test_workers.test_draining_gets_no_new_leases_and_is_not_made_available_again,),
    ),
    Mutant(
        "a heartbeat heals what probes have found",
        "heartbeat",
        "if w.state == 'STARTING' then",
        "if w.state == 'STARTING' or w.state == 'UNHEALTHY' then",
        (test_workers.test_three_bad_probes_make_unhealthy_and_two_good_ones_heal,),
    ),
    Mutant(
        "probes end a drain",
        "probe",
        "elseif w.state == 'UNHEALTHY' and w.ok",
        "elseif (w.state == 'UNHEALTHY' or w.state == 'DRAINING') and w.ok",
        (test_workers.test_draining_gets_no_new_leases_and_is_not_made_available_again,),
    ),
    Mutant(
        "two bad probes are enough",
        "_records",
        "BAD_PROBES, GOOD_PROBES = 3, 2",
        "BAD_PROBES, GOOD_PROBES = 2, 2",
        (test_workers.test_three_bad_probes_make_unhealthy_and_two_good_ones_heal,),
    ),
    Mutant(
        "one good probe is enough",
        "_records",
        "BAD_PROBES, GOOD_PROBES = 3, 2",
        "BAD_PROBES, GOOD_PROBES = 3, 1",
        (test_workers.test_three_bad_probes_make_unhealthy_and_two_good_ones_heal,),
    ),
    Mutant(
        "a good probe forgets no bad one",
        "probe",
        "w.ok, w.bad = w.ok + 1, 0",
        "w.ok = w.ok + 1",
        (test_workers.test_three_bad_probes_make_unhealthy_and_two_good_ones_heal,),
    ),
    Mutant(
        "probes heal a worker that does not beat",
        "probe",
        " and now - w.hb <= UNHEALTHY_MS",
        "",
        (test_workers.test_good_probes_do_not_heal_without_a_fresh_heartbeat,),
    ),
    Mutant(
        "probes from before a silence count after it",
        "_leases",
        "            redis.call('HSET', WORKER .. worker, 'ok', '0')\n",
        "",
        (test_workers.test_probes_before_a_silence_do_not_heal_after_it,),
    ),
    Mutant(
        "a worker that was never ready heals to AVAILABLE",
        "probe",
        "w.ready and 'AVAILABLE' or 'STARTING'",
        "'AVAILABLE'",
        (test_workers.test_a_worker_that_was_never_ready_heals_to_starting,),
    ),
    Mutant(
        "a worker that is gone is never forgotten",
        "_leases",
        "redis.call('DEL', WORKER .. worker, FENCES .. worker)",
        "",
        (test_workers.test_a_worker_gone_for_a_day_is_forgotten,),
    ),
    Mutant(
        "nobody wakes the members of a grant",
        "_records",
        "redis.call('PUBLISH', WAKE .. member.worker, '')",
        "",
        (test_client.test_wakeups_tell_of_grants_and_releases,),
    ),
)

MUTANTS = (*REGRESSIONS, *CLOCK, *FENCES, *SLOTS, *ENDINGS, *SWAP, *ADOPTION, *QUEUE, *WORKERS)

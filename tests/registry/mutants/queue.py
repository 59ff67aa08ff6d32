"""Waiting, hand-off, reservations and claims, broken."""

from functools import partial

from tests.registry import test_queue, test_workers
from tests.registry.mutants.mutant import Mutant

QUEUE = (
    Mutant(
        "the last place of the queue is none",
        "acquire",
        "position > queue_max",
        "position >= queue_max",
        (test_queue.test_the_last_place_of_the_queue_is_a_place,),
    ),
    Mutant(
        "who was turned away stays in the queue",
        "acquire",
        "    redis.call('ZREM', QUEUE, id)\n",
        "",
        (test_queue.test_who_was_turned_away_leaves_nothing_behind,),
    ),
    Mutant(
        "a reservation that loses one worker keeps the others",
        "_leases",
        "local function requeue(c, why)\n    free_all(c)",
        "local function requeue(c, why)",
        (test_queue.test_a_reservation_that_loses_one_worker_frees_the_others,),
    ),
    Mutant(
        "a head that is adopted holds the queue up",
        "adopt",
        "    capacity_grew = true\n",
        "",
        (test_queue.test_a_head_that_its_holder_adopts_makes_way,),
    ),
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

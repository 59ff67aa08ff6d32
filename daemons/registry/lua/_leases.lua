-- In front of every script, after _records.lua: how slots are given and taken. It ends what is overdue,
-- so that each script starts from a registry that is up to date.

local capacity_grew = false -- a slot came free, a worker came up, or the head of the queue changed

-- The least recently granted worker of the role that has a free slot, or nil. `avoid` is a member to be replaced.
local function pick(role, avoid)
    local best
    for _, worker in ipairs(redis.call('ZRANGE', WORKERS, 0, -1)) do
        local w = load_worker(worker)
        local same = avoid and avoid.worker == worker and avoid.boot == w.boot
        if w.role == role and w.state == 'AVAILABLE' and not same and redis.call('HLEN', SLOTS .. worker) < w.slots then
            if not best or w.granted < best.granted or (w.granted == best.granted and worker < best.worker) then
                best = w
            end
        end
    end
    return best
end

local function lease(id, w, fence)
    local slot = 0
    while load_slot(w.worker, slot) do
        slot = slot + 1
    end
    local member = {worker = w.worker, addr = w.addr, slot = slot, boot = w.boot, fence = fence}
    fill_slot(id, member)
    redis.call('HSET', WORKER .. w.worker, 'granted', int(member.fence))
    return member
end

local function free(id, member)
    if holds(id, member) then
        redis.call('HDEL', SLOTS .. member.worker, int(member.slot))
        capacity_grew = true
    end
end

local function free_all(c)
    for _, member in pairs(c.bundle) do
        free(c.call, member)
    end
end

local function end_call(c, kind, why)
    free_all(c)
    if c.state == 'HELD' then
        remember_end(c.call, c.fence)
    end
    redis.call('DEL', CALL .. c.call)
    redis.call('ZREM', DEADLINES, c.call)
    redis.call('ZREM', QUEUE, c.call)
    capacity_grew = true
    log(kind, {call = c.call, fence = c.fence, was = c.state, why = why})
    wake(c.bundle)
end

-- Give every role of a waiting call a slot, or none.
local function place(c)
    local chosen = {}
    for _, role in ipairs(c.roles) do
        chosen[role] = pick(role)
        if not chosen[role] then
            return false
        end
    end
    c.fence = next_fence()
    for _, role in ipairs(c.roles) do
        c.bundle[role] = lease(c.call, chosen[role], c.fence)
    end
    return true
end

local function hold(c, ttl_ms)
    local was = c.state
    c.state, c.expires = 'HELD', now + ttl_ms
    save_call(c)
    local members = {}
    for _, role in ipairs(c.roles) do
        members[#members + 1] = role .. '=' .. c.bundle[role].worker .. '/' .. int(c.bundle[role].slot)
    end
    log('granted', {call = c.call, fence = c.fence, was = was, waited_ms = now - c.since,
        members = table.concat(members, ' ')})
    wake(c.bundle)
end

-- Serve the queue from its head for as long as the head can be served. `claimer` asks at this moment, so it
-- holds at once what it is given; the others have RESERVATION_MS to ask.
local function hand_off(claimer, ttl_ms)
    capacity_grew = false
    while true do
        local head = redis.call('ZRANGE', QUEUE, 0, 0)[1]
        local c = head and load_call(head)
        if not c or not place(c) then
            return
        end
        if head == claimer then
            hold(c, ttl_ms)
        else
            c.state, c.expires = 'RESERVED', now + RESERVATION_MS
            save_call(c)
            log('reserved', {call = head, fence = c.fence})
        end
    end
end

-- A reservation that cannot be kept: back to the place in the queue that the call had.
local function requeue(c, why)
    free_all(c)
    c.state, c.fence, c.bundle = 'QUEUED', 0, {}
    save_call(c)
    capacity_grew = true
    log('queued', {call = c.call, why = why})
end

local function revoke_slot(w, slot, why)
    local entry = load_slot(w.worker, slot)
    local c = entry and load_call(entry.call)
    if not c then
        return -- went with another slot of its call
    elseif c.state == 'RESERVED' then
        requeue(c, why)
    elseif w.role == HOLDER then
        end_call(c, 'lost', why)
    else
        redis.call('HDEL', SLOTS .. w.worker, int(slot))
        capacity_grew = true
        log('revoked', {call = c.call, worker = w.worker, role = w.role, fence = entry.fence, why = why})
        wake(c.bundle)
    end
end

local function slots_of(worker) -- the leased ones, in ascending order
    local slots = {}
    for _, slot in ipairs(redis.call('HKEYS', SLOTS .. worker)) do
        slots[#slots + 1] = tonumber(slot)
    end
    table.sort(slots)
    return slots
end

local function revoke_all(w, why)
    for _, slot in ipairs(slots_of(w.worker)) do
        revoke_slot(w, slot, why)
    end
end

local function to_gone(w, why)
    set_state(w, 'GONE', why)
    redis.call('ZREM', WORKERS, w.worker)
    redis.call('ZADD', GONE, int(now), w.worker)
    revoke_all(w, why)
end

local ended_calls, unhealthy_workers, gone_workers = {}, {}, {} -- by this script's sweep

local function sweep()
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', int(now))) do
        local c = load_call(id)
        end_call(c, c.state == 'HELD' and 'lost' or 'expired', 'nobody renewed it in time')
        ended_calls[#ended_calls + 1] = id
    end
    for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', '(' .. int(now - UNHEALTHY_MS))) do
        local w = load_worker(worker)
        if now - w.hb > GONE_MS then
            to_gone(w, 'no heartbeat')
            gone_workers[#gone_workers + 1] = worker
        elseif w.state == 'AVAILABLE' or w.state == 'STARTING' then
            redis.call('HSET', WORKER .. worker, 'ok', '0')
            set_state(w, 'UNHEALTHY', 'no heartbeat')
            unhealthy_workers[#unhealthy_workers + 1] = worker
        end
    end
    redis.call('ZREMRANGEBYSCORE', ENDED, '-inf', int(now - ENDED_MS))
    for _, worker in ipairs(redis.call('ZRANGEBYSCORE', GONE, '-inf', int(now - FORGET_MS))) do
        redis.call('DEL', WORKER .. worker, FENCES .. worker)
        redis.call('ZREM', GONE, worker)
    end
end

local function reply(answer)
    if capacity_grew then
        hand_off()
    end
    answer.seq = seq
    return cjson.encode(answer)
end

sweep()
if capacity_grew then
    hand_off()
end

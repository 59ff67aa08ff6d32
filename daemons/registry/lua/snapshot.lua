-- Everything, at one moment.
-- ARGV: none

local workers, calls = {}, {}
for _, key in ipairs({WORKERS, GONE}) do
    for _, worker in ipairs(redis.call('ZRANGE', key, 0, -1)) do
        local w = load_worker(worker)
        local leases = {}
        for _, slot in ipairs(slots_of(worker)) do
            local entry = load_slot(worker, slot)
            leases[#leases + 1] = {slot = slot, call = entry.call, fence = entry.fence}
        end
        workers[#workers + 1] = {worker = worker, boot = w.boot, role = w.role, addr = w.addr, slots = w.slots,
            state = w.state, hb_age_ms = now - w.hb, meta = w.meta, leases = leases}
    end
end
for _, id in ipairs(redis.call('ZRANGE', DEADLINES, 0, -1)) do
    local c = load_call(id)
    local rank = redis.call('ZRANK', QUEUE, id)
    calls[#calls + 1] = {call = id, state = c.state, roles = c.roles, fence = c.fence, bundle = c.bundle,
        expires_ms = c.expires, age_ms = now - c.since, position = rank and rank + 1 or nil}
end
local newest = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
return reply({now_ms = now, workers = workers, calls = calls, last_event = newest and newest[1] or '0-0'})

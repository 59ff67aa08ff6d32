-- Make a worker known, or refresh it. A new boot ends the one that was here before, for good.
-- ARGV: 2 worker  3 boot  4 role  5 addr  6 slots  7 highest fence the worker has seen  8 meta (JSON)

local worker, boot, role, addr, slots, max_fence, meta = unpack(ARGV, 2, 8)
raise_fence(tonumber(max_fence))

if redis.call('ZSCORE', RETIRED .. worker, boot) then
    return reply({status = 'STALE_BOOT'})
end
if registered(worker, boot) then
    beat(worker)
    return reply({status = 'REFRESHED'})
end

local before = load_worker(worker)
if before and before.boot ~= boot then
    redis.call('ZADD', RETIRED .. worker, int(now), before.boot)
    redis.call('ZREMRANGEBYRANK', RETIRED .. worker, 0, -MAX_RETIRED - 1)
    redis.call('EXPIRE', RETIRED .. worker, RETIRED_S)
    log('retired', {worker = worker, role = before.role, boot = before.boot, was = before.state})
    revoke_all(before, 'its worker has restarted')
end

-- `granted` stays: a worker that restarts again and again must not be first in line each time.
local w = {worker = worker, boot = boot, role = role, addr = addr, slots = tonumber(slots), state = 'STARTING',
    granted = before and before.granted, meta = meta}
create_worker(w)
log('registered', {worker = worker, role = role, boot = boot, slots = slots})

for _, slot in ipairs(slots_of(worker)) do -- adopted before their worker came back
    if slot >= w.slots then
        revoke_slot(w, slot, 'its worker has no such slot')
    end
end
return reply({status = 'CREATED'})

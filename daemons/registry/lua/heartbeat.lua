-- A worker is alive, and asks which leases it owes to whom. Reservations are not shown: nobody has claimed them.
-- ARGV: 2 worker  3 boot  4 ready (1 or 0)

local worker, boot, ready = unpack(ARGV, 2, 4)
local w = registered(worker, boot)
if not w then
    return reply({status = 'UNKNOWN'})
end
beat(worker)
if ready == '1' then
    redis.call('HSET', WORKER .. worker, 'ready', '1')
    if w.state == 'STARTING' then
        set_state(w, 'AVAILABLE', 'ready')
        capacity_grew = true
    end
end

local leases = {}
for _, slot in ipairs(slots_of(worker)) do
    local entry = load_slot(worker, slot)
    local c = load_call(entry.call)
    if c.state == 'HELD' then
        leases[#leases + 1] = {slot = slot, call = c.call, fence = entry.fence, bundle = c.bundle,
            expires_ms = c.expires}
    end
end
return reply({status = 'OK', state = w.state, leases = leases})

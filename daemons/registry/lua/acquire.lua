-- Ask for one slot of each role: all or none, in the order of asking. Asked again, it claims a reservation,
-- keeps a ticket alive, or gives the same answer.
-- ARGV: 2 call  3 roles (JSON array)  4 ttl_ms  5 how many calls may wait

local id, roles, ttl_ms, queue_max = ARGV[2], cjson.decode(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function missing(wanted) -- the first role without a registered worker
    local present = {}
    for _, worker in ipairs(redis.call('ZRANGE', WORKERS, 0, -1)) do
        local w = load_worker(worker)
        present[w.role] = present[w.role] or w.state ~= 'EXPECTED'
    end
    for _, role in ipairs(wanted) do
        if not present[role] then
            return role
        end
    end
    return nil
end

local c = load_call(id)
local is_new = c == nil
c = c or {call = id, state = 'QUEUED', roles = roles, fence = 0, bundle = {}, ticket = seq, since = now}

if c.state == 'QUEUED' then
    c.expires = now + TICKET_MS
    local role = missing(c.roles)
    if not role or not is_new then
        save_call(c)
    end
    if role then -- a call that already waits keeps its place for as long as it asks
        return reply({status = 'UNAVAILABLE', role = role})
    end
    hand_off(id, ttl_ms)
    c = load_call(id)
elseif c.state == 'RESERVED' then
    hold(c, ttl_ms)
end

if c.state == 'HELD' then
    return reply({status = 'GRANTED', fence = c.fence, bundle = c.bundle})
end
local position = redis.call('ZRANK', QUEUE, id) + 1
if is_new and position > queue_max then
    redis.call('DEL', CALL .. id)
    redis.call('ZREM', QUEUE, id)
    redis.call('ZREM', DEADLINES, id)
    log('refused', {call = id, why = 'full'})
    return reply({status = 'FULL'})
end
if is_new then
    log('queued', {call = id, position = position})
end
return reply({status = 'QUEUED', position = position})

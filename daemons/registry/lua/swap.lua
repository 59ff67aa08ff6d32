-- Replace one member by a healthy worker, ahead of the queue. Until the next renew a repeat gets the same answer,
-- unless the new member is lost already.
-- ARGV: 2 call  3 the call's fence  4 role  5 ttl_ms

local role, ttl_ms = ARGV[4], tonumber(ARGV[5])
local c = held(ARGV[2], ARGV[3])
if not c then
    return reply({status = 'LOST'})
end
local old = c.bundle[role]
if not old then
    return reply({status = 'NONE'})
end

local swapped = cjson.decode(redis.call('HGET', CALL .. c.call, 'swapped') or '{}')
if swapped[role] and holds(c.call, old) and load_worker(old.worker).state ~= 'DRAINING' then
    prolong(c, now + ttl_ms)
    return reply({status = 'OK', member = old})
end

local w = pick(role, old)
if not w then
    return reply({status = 'NONE'})
end
wake(c.bundle)
free(c.call, old)
c.bundle[role] = lease(c.call, w, next_fence())
c.expires = now + ttl_ms
save_call(c)
swapped[role] = true
redis.call('HSET', CALL .. c.call, 'swapped', cjson.encode(swapped))
log('swapped', {call = c.call, role = role, worker = w.worker, fence = c.bundle[role].fence, was = old.worker})
wake({c.bundle[role]})
return reply({status = 'OK', member = c.bundle[role]})

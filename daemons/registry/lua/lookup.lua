-- How a call stands, without asking for anything: no ticket is prolonged and no reservation claimed.
-- ARGV: 2 call

local c = load_call(ARGV[2])
if not c then
    return reply({state = 'NONE'})
end
local rank = redis.call('ZRANK', QUEUE, c.call)
return reply({state = c.state, fence = c.fence, bundle = c.bundle, expires_ms = c.expires,
    position = rank and rank + 1 or nil})

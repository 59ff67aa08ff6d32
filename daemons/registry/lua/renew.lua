-- The holder keeps its call, and learns which members it must replace.
-- ARGV: 2 call  3 the call's fence  4 ttl_ms

local c = held(ARGV[2], ARGV[3])
if not c then
    return reply({status = 'LOST'})
end
prolong(c, now + tonumber(ARGV[4]))
redis.call('HDEL', CALL .. c.call, 'swapped')

local moving = {}
for role, member in pairs(c.bundle) do
    if not holds(c.call, member) or load_worker(member.worker).state == 'DRAINING' then
        moving[#moving + 1] = role
    end
end
table.sort(moving)
return reply({status = 'OK', moving = moving})

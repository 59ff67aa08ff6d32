-- The audit log from one entry on.
-- ARGV: 2 id of the last entry already read  3 how many at most

local events = {}
for _, entry in ipairs(redis.call('XRANGE', EVENTS, '(' .. ARGV[2], '+', 'COUNT', ARGV[3])) do
    local fields = {}
    for i = 1, #entry[2], 2 do
        fields[entry[2][i]] = entry[2][i + 1]
    end
    events[#events + 1] = {id = entry[1], fields = fields}
end
return reply({events = events})

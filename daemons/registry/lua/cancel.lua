-- Who waits gives up: the ticket or the reservation ends. A call that is held stays.
-- ARGV: 2 call

local c = load_call(ARGV[2])
if c and c.state ~= 'HELD' then
    end_call(c, 'cancelled')
end
return reply({status = 'OK'})

-- The holder gives everything back. Anyone else's word changes nothing.
-- ARGV: 2 call  3 the call's fence

local c = held(ARGV[2], ARGV[3])
if c then
    end_call(c, 'released')
end
return reply({status = 'OK'})

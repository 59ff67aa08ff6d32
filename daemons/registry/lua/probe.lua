-- What a prober saw at the worker's health port. One bad probe changes nothing.
-- ARGV: 2 worker  3 boot  4 ok (1 or 0)

local worker, boot, ok = unpack(ARGV, 2, 4)
local w = registered(worker, boot)
if not w then
    return reply({status = 'UNKNOWN'})
end
if ok == '1' then
    w.ok, w.bad = w.ok + 1, 0
else
    w.ok, w.bad = 0, w.bad + 1
end
redis.call('HSET', WORKER .. worker, 'ok', int(w.ok), 'bad', int(w.bad))

if w.bad >= BAD_PROBES and (w.state == 'AVAILABLE' or w.state == 'STARTING') then
    set_state(w, 'UNHEALTHY', 'probes failed')
elseif w.state == 'UNHEALTHY' and w.ok >= GOOD_PROBES and now - w.hb <= UNHEALTHY_MS then
    set_state(w, w.ready and 'AVAILABLE' or 'STARTING', 'probes succeed')
    capacity_grew = true
end
return reply({status = 'OK', state = w.state})

-- No new leases for this worker; what is held stays, what is only reserved goes elsewhere.
-- ARGV: 2 worker  3 boot

local w = registered(ARGV[2], ARGV[3])
if not w then
    return reply({status = 'UNKNOWN'})
end
set_state(w, 'DRAINING')
for _, slot in ipairs(slots_of(w.worker)) do
    local entry = load_slot(w.worker, slot)
    local c = entry and load_call(entry.call)
    if c and c.state == 'RESERVED' then
        requeue(c, 'its worker drains')
    elseif c then
        wake(c.bundle)
    end
end
return reply({status = 'OK'})

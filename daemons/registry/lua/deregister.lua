-- A worker says goodbye: as if GONE at once.
-- ARGV: 2 worker  3 boot

local w = load_worker(ARGV[2])
if not w or w.boot ~= ARGV[3] then
    return reply({status = 'UNKNOWN'})
end
if w.state ~= 'GONE' then
    to_gone(w, 'deregistered')
end
return reply({status = 'OK'})

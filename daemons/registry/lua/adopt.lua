-- A holder gives back to a registry that lost its data what it holds: all that is still its own, or nothing.
-- What the registry itself has ended stays ended.
-- A member whose worker has ended meanwhile is left to `swap`; a worker that is not back yet is EXPECTED.
-- ARGV: 2 call  3 the call's fence  4 bundle (JSON: role → {worker, addr, slot, boot, fence})  5 ttl_ms

local id, fence, bundle, ttl_ms = ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4]), tonumber(ARGV[5])

local function judge(member)
    local w = load_worker(member.worker)
    if redis.call('ZSCORE', RETIRED .. member.worker, member.boot)
        or (w and (w.boot ~= member.boot or w.state == 'GONE'))
        or (w and w.state ~= 'EXPECTED' and member.slot >= w.slots) then
        return 'DEAD'
    end
    local entry = load_slot(member.worker, member.slot)
    local top = tonumber(redis.call('HGET', FENCES .. member.worker, int(member.slot)) or 0)
    if (entry and entry.call ~= id) or top > member.fence then
        return 'TAKEN'
    end
    return 'OURS'
end

local function expect(role, member)
    local w = load_worker(member.worker)
    if not w then
        create_worker({worker = member.worker, boot = member.boot, role = role, addr = member.addr,
            slots = member.slot + 1, state = 'EXPECTED'})
    elseif member.slot >= w.slots then
        redis.call('HSET', WORKER .. member.worker, 'slots', int(member.slot + 1))
    end
end

if has_ended(id, fence) then
    return reply({status = 'TAKEN'})
end

local c = load_call(id)
if c and c.state == 'HELD' then
    if c.fence ~= fence then
        return reply({status = 'TAKEN'})
    end
    prolong(c, now + ttl_ms)
    return reply({status = 'OK'})
end

local roles, ours = {}, {}
for role, member in pairs(bundle) do
    local verdict = judge(member)
    if verdict == 'TAKEN' or (verdict == 'DEAD' and role == HOLDER) then
        return reply({status = 'TAKEN'})
    end
    roles[#roles + 1] = role
    ours[role] = verdict == 'OURS'
end
table.sort(roles)

if c then -- somebody asked for it anew meanwhile
    free_all(c)
    capacity_grew = true
end
raise_fence(fence)
for _, role in ipairs(roles) do
    raise_fence(bundle[role].fence)
    if ours[role] then
        expect(role, bundle[role])
        fill_slot(id, bundle[role])
    end
end
save_call({call = id, state = 'HELD', roles = roles, fence = fence, bundle = bundle, expires = now + ttl_ms,
    ticket = seq, since = now})
log('adopted', {call = id, fence = fence})
return reply({status = 'OK'})

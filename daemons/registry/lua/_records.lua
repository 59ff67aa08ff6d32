-- In front of every script: names, the clock, and how workers, slots and calls are read and written.
-- KEYS: keys.SCRIPT_KEYS, for all scripts alike.
-- ARGV[1]: milliseconds to take for TIME, or ''. The others are documented in each script.

local SYS, WORKERS, GONE, QUEUE, DEADLINES, ENDED, EVENTS = unpack(KEYS, 1, 7)
local WORKER, SLOTS, FENCES, RETIRED, CALL, WAKE = unpack(KEYS, 8, 13)

local MAX_STEP_MS = 2000
local TICKET_MS = 6000 -- a waiting call that nobody asks for any more
local RESERVATION_MS = 6000 -- a slot handed to a waiting call that does not claim it
local UNHEALTHY_MS, GONE_MS = 10000, 30000 -- age of the last heartbeat
local FORGET_MS = 24 * 3600 * 1000
local ENDED_MS = 60000 -- longer than any holder may believe in a grant that is over
local BAD_PROBES, GOOD_PROBES = 3, 2
local HOLDER = 'agent' -- the role that renews a call: when its worker is gone, so is the call
local MAX_EVENTS, MAX_RETIRED, RETIRED_S = 10000, 10000, 30 * 24 * 3600
local EPOCH_FENCES = 1000000

local function int(number) -- tostring() would lose digits of 1.7e12
    return string.format('%.0f', number)
end

-- The virtual clock: it never falls, and no gap between two scripts moves it by more than MAX_STEP_MS.
local now, seq, last_fence, run_id
do
    local real = tonumber(ARGV[1])
    if not real then
        local time = redis.call('TIME')
        real = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    local kept = redis.call('HMGET', SYS, 'v', 'last', 'seq', 'fence', 'run')
    now = tonumber(kept[1] or real) + math.max(0, math.min(real - tonumber(kept[2] or real), MAX_STEP_MS))
    seq = tonumber(kept[3] or 0) + 1
    last_fence, run_id = tonumber(kept[4] or 0), kept[5]
    redis.call('HSET', SYS, 'v', int(now), 'last', int(real), 'seq', int(seq))
end

local function log(kind, fields) -- one line of the audit log
    local entry = {'kind', kind, 'seq', int(seq), 'at', int(now)}
    for name, value in pairs(fields) do
        entry[#entry + 1] = name
        entry[#entry + 1] = type(value) == 'number' and int(value) or value
    end
    redis.call('XADD', EVENTS, 'MAXLEN', '~', MAX_EVENTS, '*', unpack(entry))
end

-- Fences ------------------------------------------------------------------------------------------

local function raise_fence(least)
    if least > last_fence then
        last_fence = least
        redis.call('HSET', SYS, 'fence', int(last_fence))
    end
end

-- Another run id means another server, or one that started anew: what it holds may lack the last grants.
local function next_fence()
    if run_id ~= true then
        local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
        if run_id and run ~= run_id then
            last_fence = last_fence + EPOCH_FENCES
        end
        redis.call('HSET', SYS, 'run', run)
        run_id = true -- looked at once in this script
    end
    raise_fence(last_fence + 1)
    return last_fence
end

-- Workers -----------------------------------------------------------------------------------------

local function load_worker(worker)
    local f = redis.call('HMGET', WORKER .. worker,
        'boot', 'role', 'addr', 'slots', 'state', 'ready', 'hb', 'ok', 'bad', 'granted', 'meta')
    if not f[1] then
        return nil
    end
    return {
        worker = worker, boot = f[1], role = f[2], addr = f[3], slots = tonumber(f[4]), state = f[5],
        ready = f[6] == '1', hb = tonumber(f[7]), ok = tonumber(f[8]), bad = tonumber(f[9]),
        granted = tonumber(f[10]), meta = f[11],
    }
end

local function beat(worker)
    redis.call('HSET', WORKER .. worker, 'hb', int(now))
    redis.call('ZADD', WORKERS, int(now), worker)
end

local function create_worker(w)
    redis.call('DEL', WORKER .. w.worker)
    redis.call('HSET', WORKER .. w.worker, 'boot', w.boot, 'role', w.role, 'addr', w.addr, 'slots', int(w.slots),
        'state', w.state, 'ready', '0', 'ok', '0', 'bad', '0', 'granted', int(w.granted or 0), 'meta', w.meta or '{}')
    redis.call('ZREM', GONE, w.worker)
    beat(w.worker)
end

local function set_state(w, state, why)
    if w.state ~= state then
        redis.call('HSET', WORKER .. w.worker, 'state', state)
        log(string.lower(state), {worker = w.worker, role = w.role, boot = w.boot, was = w.state, why = why})
        w.state = state
    end
end

-- The record of a worker that is registered under this boot, or nil.
local function registered(worker, boot)
    local w = load_worker(worker)
    if w and w.boot == boot and w.state ~= 'GONE' and w.state ~= 'EXPECTED' then
        return w
    end
    return nil
end

-- Slots -------------------------------------------------------------------------------------------

local function load_slot(worker, slot)
    local entry = redis.call('HGET', SLOTS .. worker, int(slot))
    return entry and cjson.decode(entry) or nil
end

local function fill_slot(id, member)
    redis.call('HSET', SLOTS .. member.worker, int(member.slot),
        cjson.encode({call = id, fence = member.fence, boot = member.boot}))
    redis.call('HSET', FENCES .. member.worker, int(member.slot), int(member.fence))
end

-- Whether the member's slot is still leased to this call.
local function holds(id, member)
    local entry = load_slot(member.worker, member.slot)
    return entry ~= nil and entry.call == id and entry.fence == member.fence
end

-- Calls -------------------------------------------------------------------------------------------

local function load_call(id)
    local f = redis.call('HMGET', CALL .. id, 'state', 'roles', 'fence', 'bundle', 'expires', 'ticket', 'since')
    if not f[1] then
        return nil
    end
    return {
        call = id, state = f[1], roles = cjson.decode(f[2]), fence = tonumber(f[3]), bundle = cjson.decode(f[4]),
        expires = tonumber(f[5]), ticket = tonumber(f[6]), since = tonumber(f[7]),
    }
end

local function save_call(c)
    redis.call('HSET', CALL .. c.call, 'state', c.state, 'roles', cjson.encode(c.roles), 'fence', int(c.fence),
        'bundle', cjson.encode(c.bundle), 'expires', int(c.expires), 'ticket', int(c.ticket), 'since', int(c.since))
    redis.call('ZADD', DEADLINES, int(c.expires), c.call)
    if c.state == 'QUEUED' then
        redis.call('ZADD', QUEUE, int(c.ticket), c.call)
    else
        redis.call('ZREM', QUEUE, c.call)
    end
end

local function prolong(c, expires)
    c.expires = expires
    redis.call('HSET', CALL .. c.call, 'expires', int(expires))
    redis.call('ZADD', DEADLINES, int(expires), c.call)
end

-- The call of this holder, or nil: a stranger or a lease that has passed on.
local function held(id, fence)
    local c = load_call(id)
    if c and c.state == 'HELD' and c.fence == tonumber(fence) then
        return c
    end
    return nil
end

-- A grant that is over must not be adopted back by a holder that was not told.
local function remember_end(id, fence)
    redis.call('ZADD', ENDED, int(now), id .. '/' .. int(fence))
end

local function has_ended(id, fence)
    return redis.call('ZSCORE', ENDED, id .. '/' .. int(fence)) ~= false
end

local function wake(bundle)
    for _, member in pairs(bundle) do
        redis.call('PUBLISH', WAKE .. member.worker, '')
    end
end

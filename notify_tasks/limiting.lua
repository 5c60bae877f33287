-- One provider's rate, shared by the fleet: a generic cell rate algorithm (ITU-T I.371) with a queue of places.
--
-- KEYS[1]  hash: tat (when the rate is used up to), tat_rest (the same for all lanes but high), interval,
--          tail_high, tail_rest (the last place given in each queue),
--          late_high, late_rest (the same for those that missed their first one), start (of the next call),
--          by (the interval by which the last three were written: what another rate wrote counts no more)
-- KEYS[2]  sorted set: the processes that ask, by the time they last did
-- ARGV     'take', seconds a call, seconds of burst, the share kept for the high lane, high (1 or 0), manner, process
--          (manner: 0 takes a place, 1 had one, 2 goes now or takes none)
--          'announce', seconds a call (0: the provider has no rate any more)
--          'queue', seconds a call, seconds until the last place that is given
--          'start', seconds a call, seconds that may be waited at most
--
-- take      answers {seconds to wait (as text; '0' is: go), processes that asked lately}
-- announce  answers 1 if another rate was in force, else 0
-- queue     says where the queue ends now
-- start     answers seconds until the call may begin (as text), after the last one's beginning; '-1' if too long

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local interval = tonumber(ARGV[2])

local function get(name)
  return tonumber(redis.call('HGET', KEYS[1], name) or '0')
end

local function set(name, value)
  redis.call('HSET', KEYS[1], name, string.format('%.6f', value))
end

if ARGV[1] == 'announce' then
  local before = redis.call('HGET', KEYS[1], 'interval')
  if before == ARGV[2] then
    return 0
  end
  -- What was given by another rate counts no more; who waits is told a new place by whoever gets this answer.
  redis.call('DEL', KEYS[1])
  if interval > 0 then
    redis.call('HSET', KEYS[1], 'interval', ARGV[2])
    redis.call('EXPIRE', KEYS[1], 604800)
  end
  return before and 1 or 0
end

if ARGV[1] == 'queue' then
  set('tail_high', now + tonumber(ARGV[3]))
  set('tail_rest', now + tonumber(ARGV[3]))
  redis.call('HDEL', KEYS[1], 'late_high', 'late_rest')
  return 0
end

-- A process that has not read a new rate yet may have put these a minute ahead.
local function of_this_rate(name)
  if redis.call('HGET', KEYS[1], 'by') ~= ARGV[2] then
    redis.call('HDEL', KEYS[1], 'late_high', 'late_rest', 'start')
    redis.call('HSET', KEYS[1], 'by', ARGV[2])
  end
  return get(name)
end

if ARGV[1] == 'start' then
  local begin = math.max(now, of_this_rate('start'))
  if begin - now > tonumber(ARGV[3]) then
    return '-1'
  end
  set('start', begin + interval)
  redis.call('EXPIRE', KEYS[1], 604800)
  return string.format('%.6f', begin - now)
end

local burst, kept = tonumber(ARGV[3]), tonumber(ARGV[4])
local high, waited, now_or_not = ARGV[5] == '1', ARGV[6] == '1', ARGV[6] == '2'
redis.call('ZADD', KEYS[2], now, ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 30)
redis.call('EXPIRE', KEYS[2], 60)
local processes = redis.call('ZCARD', KEYS[2])
redis.call('EXPIRE', KEYS[1], 604800)

-- All lanes together may use the whole rate, those below high only what is left when its share is kept.
local rest = interval / (1 - kept)
-- A process that has not read a new rate yet counts by the old one: never beyond what this rate can have used up.
local function used(name, seconds)
  local most = now + math.max(burst, seconds)
  local until_ = get(name)
  if until_ > most then
    set(name, most)
  end
  return math.min(math.max(now, until_), most)
end
local tat = used('tat', interval)
local tat_rest = used('tat_rest', rest)
local wait = tat + interval - now - math.max(burst, interval)
if not high then
  wait = math.max(wait, tat_rest + rest - now - math.max(burst, rest))
end
local queue = high and 'tail_high' or 'tail_rest'
local tail = get(queue)
local behind = tail > now and not waited

if wait <= 0.000001 and not behind then
  set('tat', tat + interval)
  if not high then
    set('tat_rest', tat_rest + rest)
  end
  return {'0', processes}
end
local step = high and interval or rest
if now_or_not then
  return {string.format('%.6f', math.max(wait, step)), processes}
end
if waited then
  -- It had its place, and somebody was quicker by a moment: it does not go to the end again. Those that are late come
  -- one after another, or a hundred of them would come at once for each turn.
  local late = high and 'late_high' or 'late_rest'
  local again = math.max(now + math.max(wait, step), of_this_rate(late) + step)
  set(late, again)
  return {string.format('%.6f', again - now), processes}
end
local place = math.max(now + math.max(wait, 0), tail + step)
set(queue, place)
return {string.format('%.6f', math.max(place - now, 0.001)), processes}

-- How often somebody is written to, shared by the fleet: the times of the last messages, and the turns given.
--
-- KEYS     for each scope a sorted set: deliveries by the time of their turn, which may be in the future
-- ARGV     the delivery, seconds until it expires, then for each scope: how many limits, and count and seconds of each
--
-- answers  seconds to wait (as text; '0' is: go, '-1': its turn comes after its end)

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local id, lifetime = ARGV[1], tonumber(ARGV[2])

-- Its turn in each scope; given once, whatever is asked again, so that a retry counts no second time.
local turn, longest, at = now, {}, 3
local given = false
for scope = 1, #KEYS do
  local most, limits = 0, {}
  for n = 1, tonumber(ARGV[at]) do
    limits[n] = {tonumber(ARGV[at + 2 * n - 1]), tonumber(ARGV[at + 2 * n])}
    most = math.max(most, limits[n][2])
  end
  at = at + 1 + 2 * #limits
  longest[scope] = most
  redis.call('ZREMRANGEBYSCORE', KEYS[scope], '-inf', now - most)
  local mine = redis.call('ZSCORE', KEYS[scope], id)
  if mine then
    given = true
    turn = math.max(turn, tonumber(mine))
  else
    for _, limit in ipairs(limits) do
      local nth = redis.call('ZREVRANGE', KEYS[scope], limit[1] - 1, limit[1] - 1, 'WITHSCORES')
      if nth[2] then
        turn = math.max(turn, tonumber(nth[2]) + limit[2])
      end
    end
    local last = redis.call('ZREVRANGE', KEYS[scope], 0, 0, 'WITHSCORES')
    if last[2] then
      turn = math.max(turn, tonumber(last[2]))
    end
  end
end

if turn - now >= lifetime then
  if given then
    for scope = 1, #KEYS do
      redis.call('ZREM', KEYS[scope], id)
    end
  end
  return '-1'
end
for scope = 1, #KEYS do
  redis.call('ZADD', KEYS[scope], 'NX', string.format('%.6f', turn), id)
  redis.call('EXPIRE', KEYS[scope], math.ceil(turn - now + longest[scope]) + 1)
end
return string.format('%.6f', turn - now)

-- Takes from all buckets or from none. KEYS: the buckets. ARGV[1]: 1 to owe, then rate, burst and cost for each
-- bucket, between spaces.
-- Returns the place of the bucket that had too little (0: none), the wait in ms, and what is left in each.
local given = {}
for number in string.gmatch(ARGV[1], '%S+') do
  given[#given + 1] = tonumber(number)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local levels, left, short, wait = {}, {}, 0, 0
for i, key in ipairs(KEYS) do
  local rate, burst = given[i * 3 - 1], given[i * 3]
  local had = redis.call('HMGET', key, 'level', 'at')
  local level = burst
  if had[1] then
    level = math.min(burst, tonumber(had[1]) + (now - tonumber(had[2])) * rate / 1000)
  end
  local missing = math.max(given[i * 3 + 1], 1) - level
  if missing > 0 and missing / rate * 1000 > wait then
    short, wait = i, missing / rate * 1000
  end
  levels[i] = level
  left[i] = math.floor(level)
end
if short > 0 and given[1] ~= 1 then
  return {short, math.ceil(wait), unpack(left)}
end
for i, key in ipairs(KEYS) do
  local rate, burst = given[i * 3 - 1], given[i * 3]
  local level = levels[i] - given[i * 3 + 1]
  redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', string.format('%.3f', now))
  redis.call('PEXPIRE', key, math.ceil((burst - level) / rate * 1000) + 1000)
  left[i] = math.floor(level)
end
return {0, 0, unpack(left)}

import { TOMBSTONE } from './header.ts';
import type { Script } from './hashes.ts';

// Only a script can change a hash and its expiry atomically. It uses a single key, so it also works in a cluster. It rejects a change
// before its first write, because Redis does not roll back what a script has written.
const PRELUDE = `
local key = KEYS[1]
local header = redis.call('HGET', key, '')
if not header and redis.call('EXISTS', key) == 1 then
  return redis.error_reply('WRONGTYPE The key holds a hash that is not a session')
end
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local NEVER, NONE = math.huge, -math.huge

local function format(timestamp)
  if timestamp == NEVER or timestamp == NONE then return '' end
  return string.format('%.0f', timestamp)
end

local function expire(expiry, idle)
  local expiresAt = math.min(expiry, clock + idle)
  if expiresAt == NEVER then redis.call('PERSIST', key) else redis.call('PEXPIREAT', key, format(expiresAt)) end
end

local function unreadable()
  return redis.error_reply('UNREADABLE The header of the session is not known')
end
`;

/**
 * Applies a change. `patchArguments` in store.ts creates its arguments.
 *
 * The header is stale when a field was removed or its expiry became earlier. Then the script computes it again from all fields. Redis rejects
 * writes when it has no memory or no replicas, or is not the primary. The first write of the script must be one that Redis can reject,
 * because nothing is rolled back.
 */
const PATCH = `${PRELUDE}
if header == '${TOMBSTONE}' then return 'destroyed' end

local now = tonumber(ARGV[1])
local lifetime = tonumber(ARGV[2]) or NEVER
local defaultTtl = tonumber(ARGV[3]) or NEVER
local idle = tonumber(ARGV[4]) or NEVER

-- A list is preceded by its length.
local last = 5
local function list(width)
  local first = last + 2
  last = first - 1 + ARGV[first - 1] * width
  return { first = first, last = last, width = width }
end
local expect, absent = list(2), list(1)
local unset, purge, ifAbsent, set = list(1), list(1), list(2), list(2)

if ARGV[5] == 'exists' and not header then return 'missing' end
if ARGV[5] == 'new' and header then return 'conflict' end
for i = expect.first, expect.last, 2 do
  if redis.call('HGET', key, ARGV[i]) ~= ARGV[i + 1] then return 'conflict' end
end
for i = absent.first, absent.last do
  if redis.call('HEXISTS', key, ARGV[i]) == 1 then return 'conflict' end
end

local own, openEnded = NONE, false
if header then
  local ownPart, openEndedPart = string.match(header, '^1:%d*:(%d*):([01])$')
  if not ownPart then return unreadable() end
  own, openEnded = tonumber(ownPart) or NONE, openEndedPart == '1'
end

local function expiryOf(value)
  return tonumber(string.match(value, '^(-?%d+):'))
end

local function count(value)
  if string.sub(value, 1, 2) == '-:' then return end
  local expires = expiryOf(value)
  if expires then own = math.max(own, clock + expires - now) else openEnded = true end
end

-- Whether the header may overstate the expiry of the fields.
local stale = false

local function remove(name)
  if redis.call('HDEL', key, name) == 1 then stale = true end
end

local function write(name, value)
  local before = redis.call('HGET', key, name)
  if before then
    local was, is = expiryOf(before), expiryOf(value)
    if was ~= is and not (was and is and was < is) then stale = true end
  end
  redis.call('HSET', key, name, value)
  count(value)
end

-- Make a write that Redis can reject before all others.
if set.last >= set.first or ifAbsent.last >= ifAbsent.first then redis.call('HSET', key, '', header or '') end

for i = unset.first, unset.last do remove(ARGV[i]) end
for i = purge.first, purge.last do
  local value = redis.call('HGET', key, ARGV[i])
  local expires = value and expiryOf(value)
  if expires and expires < now then remove(ARGV[i]) end
end
for i = ifAbsent.first, ifAbsent.last, 2 do
  if redis.call('HEXISTS', key, ARGV[i]) == 0 then write(ARGV[i], ARGV[i + 1]) end
end
for i = set.first, set.last, 2 do write(ARGV[i], ARGV[i + 1]) end

if stale or (own == NONE and not openEnded) then
  own, openEnded = NONE, false
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] ~= '' then count(fields[i + 1]) end
  end
end

local expiry = math.max(own, openEnded and clock + defaultTtl or NONE)
if expiry == NONE then expiry = clock + lifetime end
redis.call('HSET', key, '', '1:' .. format(expiry) .. ':' .. format(own) .. ':' .. (openEnded and '1' or '0'))
expire(expiry, idle)
return 'applied'
`;

/** Reads a record and sets its idle limit to ARGV[1] milliseconds from now. */
const TOUCH = `${PRELUDE}
if not header or header == '${TOMBSTONE}' then return false end
local expiry = string.match(header, '^1:(%d*):%d*:[01]$')
if not expiry then return unreadable() end
local fields = redis.call('HGETALL', key)
expire(tonumber(expiry) or NEVER, tonumber(ARGV[1]))
return fields
`;

/**
 * Replaces a record with a tombstone for ARGV[1] milliseconds, and returns the record; or 'destroyed' if there already is a tombstone,
 * which may only be extended. It also replaces data that is not a record. Otherwise a user whose record cannot be read could not sign out.
 */
const DESTROY = `
local key = KEYS[1]
local header = redis.pcall('HGET', key, '')
if type(header) ~= 'string' then header = '' end
if header == '${TOMBSTONE}' then
  if redis.call('PTTL', key) < tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[1]) end
  return 'destroyed'
end
local contents = false
if string.match(header, '^1:%d*:%d*:[01]$') then contents = redis.call('HGETALL', key) end
redis.call('DEL', key)
redis.call('HSET', key, '', '${TOMBSTONE}')
redis.call('PEXPIRE', key, ARGV[1])
return contents
`;

/** The sources of the scripts. Loaded only if Redis does not have a script yet: otherwise, its hash is enough. */
export const scripts: Record<Script, string> = { patch: PATCH, touch: TOUCH, destroy: DESTROY };

import { sha1 } from '@noble/hashes/legacy.js';
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js';

/**
 * A session is one hash. The field with the empty name is its header, the others are the session's:
 *
 *     1:<hard deadline>:<latest own expiry>:<1 or 0>     a record
 *     1:retired                                          a tombstone
 *
 * Moments are epoch milliseconds by Redis's clock; no deadline means never, and no expiry that no field has one of its own. The last
 * part says whether there are fields without one, which live for `defaultTtlMs` after each write. With it most patches know the new deadline
 * without looking at the fields that they leave alone.
 */
export const TOMBSTONE = '1:retired';
export const RECORD: RegExp = /^1:\d*:\d*:[01]$/;

export interface Script {
  readonly source: string;
  readonly sha1: string;
}

function script(source: string): Script {
  let digest: string | undefined;
  return {
    source,
    get sha1() {
      return (digest ??= bytesToHex(sha1(utf8ToBytes(source))));
    },
  };
}

// A script is the only way to change a hash and its expiry at once, and one key makes it right for a cluster. What is refused is
// refused before the first write: Redis does not take back what a script has done.
const PRELUDE = `
local key = KEYS[1]
local header = redis.call('HGET', key, '')
if not header and redis.call('EXISTS', key) == 1 then
  return redis.error_reply('WRONGTYPE The key holds a hash that is no session')
end
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local NEVER, NONE = math.huge, -math.huge

local function text(moment)
  if moment == NEVER or moment == NONE then return '' end
  return string.format('%.0f', moment)
end

local function expire(deadline, idle)
  local ends = math.min(deadline, clock + idle)
  if ends == NEVER then redis.call('PERSIST', key) else redis.call('PEXPIREAT', key, text(ends)) end
end

local function unreadable()
  return redis.error_reply('UNREADABLE The session is in a form that this version does not know')
end
`;

/** Applies a change. ARGV: see `patchArguments` in redis.ts. */
export const PATCH: Script = script(`${PRELUDE}
if header == '${TOMBSTONE}' then return 'destroyed' end

local now = tonumber(ARGV[1])
local lifetime = tonumber(ARGV[2]) or NEVER
local cap = tonumber(ARGV[3]) or NEVER
local idle = tonumber(ARGV[4]) or NEVER

-- Each list stands behind its length.
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

local own, open = NONE, false
if header then
  local ownText, openText = string.match(header, '^1:%d*:(%d*):([01])$')
  if not ownText then return unreadable() end
  own, open = tonumber(ownText) or NONE, openText == '1'
end

local function expiryOf(value)
  return tonumber(string.match(value, '^(-?%d+):'))
end

local function count(value)
  local expires = expiryOf(value)
  if expires then own = math.max(own, clock + expires - now) else open = true end
end

-- Whether what the header says of the fields may be too much.
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

-- Redis refuses a script's writes (no memory, no replicas, not the master) at the first one that takes memory.
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

if stale or (own == NONE and not open) then
  own, open = NONE, false
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] ~= '' then count(fields[i + 1]) end
  end
end

local deadline = math.max(own, open and clock + cap or NONE)
if deadline == NONE then deadline = clock + lifetime end
redis.call('HSET', key, '', '1:' .. text(deadline) .. ':' .. text(own) .. ':' .. (open and '1' or '0'))
expire(deadline, idle)
return 'applied'
`);

/** Reads a record and lets it live for ARGV[1] milliseconds more. */
export const TOUCH: Script = script(`${PRELUDE}
if not header or header == '${TOMBSTONE}' then return false end
local deadline = string.match(header, '^1:(%d*):%d*:[01]$')
if not deadline then return unreadable() end
local fields = redis.call('HGETALL', key)
expire(tonumber(deadline) or NEVER, tonumber(ARGV[1]))
return fields
`);

/**
 * Puts a tombstone in the place of a record for ARGV[1] milliseconds, and returns the record, or 'destroyed'. A tombstone that is there may
 * only be extended. What is no record goes as well: its key can only be a session's, and nobody could be signed out otherwise whose
 * record cannot be read.
 */
export const DESTROY: Script = script(`
local key = KEYS[1]
local header = redis.pcall('HGET', key, '')
if type(header) ~= 'string' then header = '' end
if header == '${TOMBSTONE}' then
  if redis.call('PTTL', key) < tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[1]) end
  return 'destroyed'
end
local held = false
if string.match(header, '^1:%d*:%d*:[01]$') then held = redis.call('HGETALL', key) end
redis.call('DEL', key)
redis.call('HSET', key, '', '${TOMBSTONE}')
redis.call('PEXPIRE', key, ARGV[1])
return held
`);

"""Limits kept in Redis (or Valkey), for all gateways together: one script admits, one settles, each at once for a key
and its account. A request's place is a lease: a gateway that is killed gives its places back when they run out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis.asyncio import Redis

from gateway.limits.local import until_next
from gateway.limits.policy import MINUTE, Holder, Refusal, Standing, UnreachableError, standing
from gateway.redis import UNREACHABLE

_KEPT_SECONDS: Final = 35 * 86400
# The same steps as gateway.limits.local, whose tests both pass. For each holder two keys: a hash of counters, a sorted
# set of leases; and seven limits.
_ADMIT: Final = f"""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local tokens, lease, seconds, day, month = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local names = {{'requests_per_minute', 'tokens_per_minute', 'concurrent', 'tokens_per_day', 'tokens_per_month',
  'cost_per_day', 'cost_per_month'}}
local function level(text, of, size, at)
  of = tonumber(of) or 0
  if size == 0 or of == 0 then return size end
  return math.min(size, tonumber(text) + size - of + math.max(0, now - at) * size / {MINUTE:g})
end
local kept = {{}}
for i = 1, #KEYS / 2 do
  local hash, places = KEYS[2 * i - 1], KEYS[2 * i]
  local most = {{}}
  for j = 1, 7 do most[j] = tonumber(ARGV[5 + 7 * (i - 1) + j]) end
  local had = redis.call('HMGET', hash, 'at', 'requests', 'tokens', 'day', 'day_tokens', 'day_cost', 'month',
    'month_tokens', 'month_cost', 'requests_of', 'tokens_of')
  local at = tonumber(had[1]) or now
  local requests, left = level(had[2], had[10], most[1], at), level(had[3], had[11], most[2], at)
  local spent = {{0, 0, 0, 0}}
  if had[4] == day then spent[1], spent[3] = tonumber(had[5]) or 0, tonumber(had[6]) or 0 end
  if had[7] == month then spent[2], spent[4] = tonumber(had[8]) or 0, tonumber(had[9]) or 0 end
  if most[1] > 0 and requests < 1 then return {{0, i, names[1], tostring((1 - requests) * {MINUTE:g} / most[1])}} end
  local needed = math.min(tokens, most[2])
  if most[2] > 0 and left < needed then return {{0, i, names[2], tostring((needed - left) * {MINUTE:g} / most[2])}} end
  redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
  if most[3] > 0 and redis.call('ZCARD', places) >= most[3] then return {{0, i, names[3], '1'}} end
  for j = 1, 4 do
    local whole = most[3 + j]
    if whole > 0 and (spent[j] >= whole or (j <= 2 and spent[j] > 0 and spent[j] + tokens > whole)) then
      return {{0, i, names[3 + j], ''}}
    end
  end
  kept[i] = {{requests, left, spent, most}}
end
local told = {{1}}
for i = 1, #KEYS / 2 do
  local hash, places, requests, left, spent = KEYS[2 * i - 1], KEYS[2 * i], kept[i][1], kept[i][2], kept[i][3]
  redis.call('HSET', hash, 'at', tostring(now), 'requests', tostring(requests - 1), 'tokens', tostring(left - tokens),
    'requests_of', kept[i][4][1], 'tokens_of', kept[i][4][2],
    'day', day, 'day_tokens', tostring(spent[1] + tokens), 'day_cost', tostring(spent[3]),
    'month', month, 'month_tokens', tostring(spent[2] + tokens), 'month_cost', tostring(spent[4]))
  redis.call('EXPIRE', hash, {_KEPT_SECONDS})
  redis.call('ZADD', places, now + seconds, lease)
  redis.call('EXPIRE', places, math.ceil(seconds) * 2)
  told[#told + 1] = tostring(requests - 1)
  told[#told + 1] = tostring(left - tokens)
end
return told
"""
_SETTLE: Final = """
local back, cost, lease, day, month = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
for i = 1, #KEYS / 2 do
  local hash = KEYS[2 * i - 1]
  redis.call('ZREM', KEYS[2 * i], lease)
  if redis.call('EXISTS', hash) == 1 then
    redis.call('HINCRBYFLOAT', hash, 'tokens', back)
    local had = redis.call('HMGET', hash, 'day', 'month', 'day_tokens', 'month_tokens')
    if had[1] == day then
      redis.call('HSET', hash, 'day_tokens', tostring(math.max(0, (tonumber(had[3]) or 0) - back)))
      redis.call('HINCRBYFLOAT', hash, 'day_cost', cost)
    end
    if had[2] == month then
      redis.call('HSET', hash, 'month_tokens', tostring(math.max(0, (tonumber(had[4]) or 0) - back)))
      redis.call('HINCRBYFLOAT', hash, 'month_cost', cost)
    end
  end
end
"""


class SharedLimits:
    """lease: seconds for which a request has its place without a word of its gateway. Every method raises
    `UnreachableError` while Redis cannot be reached."""

    def __init__(self, redis: Redis, lease: float) -> None:
        self.lease = lease
        self._redis = redis
        self._admit: Any = redis.register_script(_ADMIT)
        self._settle: Any = redis.register_script(_SETTLE)

    async def admit(
        self, holders: Sequence[Holder], tokens: int, request: str, now: float, day: str, month: str
    ) -> Sequence[Standing] | Refusal:
        """As `LocalLimits.admit`; request: an id of its own, under which it is settled and renewed."""
        arguments: list[Any] = [tokens, request, self.lease, day, month]
        for holder in holders:
            of = holder.limits
            arguments += (of.requests_per_minute, of.tokens_per_minute, of.concurrent)
            arguments += (of.tokens_per_day, of.tokens_per_month, of.cost_per_day, of.cost_per_month)
        with _away():
            told = await self._admit(keys=_keys(holders), args=arguments)
        if not told[0]:
            holder, limit = holders[int(told[1]) - 1], told[2].decode()
            return Refusal(holder, limit, float(told[3]) if told[3] else until_next(limit, now))
        levels = [float(text) for text in told[1:]]
        return [standing(holder, levels[2 * i], levels[2 * i + 1]) for i, holder in enumerate(holders)]

    async def settle(
        self, holders: Sequence[Holder], reserved: int, used: int, cost: float, request: str, day: str, month: str
    ) -> None:
        """As `LocalLimits.settle`; day, month: in which it was admitted."""
        with _away():
            await self._settle(keys=_keys(holders), args=[reserved - used, cost, request, day, month])

    async def renew(self, open_requests: Iterable[tuple[Sequence[Holder], str]]) -> None:
        """They are still open."""
        with _away():
            seconds, micros = await self._redis.time()
            until = seconds + micros / 1_000_000 + self.lease
            async with self._redis.pipeline(transaction=False) as pipeline:
                for holders, request in open_requests:
                    for places in _keys(holders)[1::2]:
                        pipeline.zadd(places, {request: until}, xx=True)
                        pipeline.expire(places, int(self.lease * 2) + 1)
                await pipeline.execute()

    async def close(self) -> None:
        """Ends the connections."""
        await self._redis.aclose()


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except UNREACHABLE as error:
        raise UnreachableError(str(error) or type(error).__name__) from error


def _keys(holders: Sequence[Holder]) -> list[str]:
    # What stands in braces keeps an account's keys together in a cluster.
    return [
        key
        for holder in holders
        for key in (f"trestle:{{{holder.account}}}:used:{holder.id}", f"trestle:{{{holder.account}}}:open:{holder.id}")
    ]

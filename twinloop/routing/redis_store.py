"""The routing key in Redis or Valkey; the only module that imports redis.

Reads go over one connection without a pool, because a pooled redis-py GET costs 3-4 times a bare one, and
without retries, because redis-py's defaults block one GET for 59 s on a half-open link.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from twinloop.errors import ConfigError, Transient, TwinLoopError
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.store import Installed, InstallMode, Refused, StoreFacts

__all__ = ["INSTALL_SCRIPT", "RedisRoutingStore", "RedisSettings"]

INSTALL_SCRIPT = """
local function decoded(text)
  local ok, document = pcall(cjson.decode, text)
  if ok and type(document) == 'table' and type(document.epoch) == 'number'
     and type(document.incarnation) == 'string' then
    return document
  end
  return nil
end
local mode = ARGV[2]
local new = decoded(ARGV[1])
if not new then return {'invalid', 0, ''} end
local raw = redis.call('GET', KEYS[1])
local reason = nil
local current = nil
if not raw then
  if mode ~= 'create' and mode ~= 'restore' then reason = 'missing_key' end
elseif raw ~= ARGV[1] then
  current = decoded(raw)
  if not current then
    if mode ~= 'restore' then reason = 'unreadable' end
  elseif mode == 'create' then reason = 'key_exists'
  elseif current.incarnation ~= new.incarnation then reason = 'other_incarnation'
  elseif new.epoch <= current.epoch then reason = 'not_higher' end
end
if reason then
  if current then return {reason, string.format('%.0f', current.epoch), current.incarnation} end
  return {reason, '0', ''}
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PUBLISH', KEYS[1], string.format('%.0f', new.epoch))
return {'installed', string.format('%.0f', new.epoch), new.incarnation}
"""
"""Compare and set by epoch in one step; the same bytes again count as installed, so that a write whose answer
was lost can be repeated."""


class RedisRoutingStore:
    """A RoutingStore over a reading and a writing connection, opened at first use. One thread only."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._where = _where(settings)
        self._reading = _connection(settings, timeout_ms=settings.timeout_ms)
        self._writing = _connection(settings, timeout_ms=settings.install_timeout_ms)
        self._get = self._reading.pack_command("GET", settings.key)
        self._is_begun = False
        self._failed: TwinLoopError | None = None

    def begin_read(self) -> None:
        """Sends the GET; whatever goes wrong is raised by `finish_read`."""
        if self._is_begun:
            # Its answer is still on the way and must never be taken for this read's.
            self._reading.disconnect()
        self._is_begun, self._failed = False, None
        try:
            with _redis_errors(self._where, "reading the routing key"):
                self._reading.send_packed_command(self._get, check_health=False)
                self._is_begun = True
        except (Transient, ConfigError) as error:
            self._failed = error

    def finish_read(self) -> bytes | None:
        """The key's bytes, None where it is missing; raises Transient, or ConfigError on refused access."""
        if not self._is_begun and self._failed is None:
            self.begin_read()
        failed, self._failed, self._is_begun = self._failed, None, False
        if failed is not None:
            raise failed
        with _redis_errors(self._where, "reading the routing key"):
            answer = self._reading.read_response()
        return answer if isinstance(answer, bytes) else None

    def read(self) -> bytes | None:
        """Begins and finishes one read."""
        self.begin_read()
        return self.finish_read()

    def install(self, state_json: bytes, *, mode: InstallMode) -> Installed | Refused:
        """Writes the state iff the rules of `mode` allow it, and publishes its epoch in the same step."""
        with _redis_errors(self._where, f"installing the routing state ({mode})"):
            answer = self._ask("EVAL", INSTALL_SCRIPT, 1, self._settings.key, state_json, mode)
            reason, epoch, incarnation = answer[0].decode(), int(answer[1]), answer[2].decode()
        if reason == "invalid":
            raise ConfigError("the state to install is not a JSON object with an epoch and an incarnation")
        if reason != "installed":
            return Refused(reason, epoch, incarnation)
        return Installed(epoch, durable=self._is_durable())

    def facts(self) -> StoreFacts:
        """Version, durability and clock of the server; raises Transient, ConfigError on refused access."""
        with _redis_errors(self._where, "asking the server about itself"):
            said = dict(
                line.split(":", 1)
                for line in self._ask("INFO", "server").decode().splitlines()
                if ":" in line
            )
            kept = dict(
                line.split(":", 1)
                for line in self._ask("INFO", "persistence").decode().splitlines()
                if ":" in line
            )
            seconds, micros = self._ask("TIME")
            try:
                fsync = (self._ask("CONFIG", "GET", "appendfsync") or [b"", b""])[1].decode()
            except ResponseError:
                fsync = ""
        version = said.get("valkey_version") or said.get("redis_version", "")
        return StoreFacts(
            version=version,
            appends=kept.get("aof_enabled") == "1",
            fsync=fsync,
            time_us=int(seconds) * 1_000_000 + int(micros),
            process_id=int(said.get("process_id", 0)),
        )

    def close(self) -> None:
        """Closes both connections; the next call opens them again."""
        self._reading.disconnect()
        self._writing.disconnect()
        self._is_begun, self._failed = False, None

    def _ask(self, *command: Any) -> Any:
        self._writing.send_command(*command, check_health=False)
        return self._writing.read_response()

    def _is_durable(self) -> bool:
        """Whether the last write is on disk here and on the configured number of replicas; silence is no."""
        replicas, patience = self._settings.wait_replicas, self._settings.wait_ms
        try:
            with _redis_errors(self._where, "asking whether the routing state is durable"):
                try:
                    synced, acknowledged = self._ask("WAITAOF", 1, replicas, patience)
                    return bool(synced >= 1 and acknowledged >= replicas)
                except ResponseError:
                    return self._is_durable_before_waitaof(replicas, patience)
        except (Transient, ConfigError):
            return False

    def _is_durable_before_waitaof(self, replicas: int, patience: int) -> bool:
        """Redis before 7.2: `appendfsync always` answers a write only after its fsync."""
        answer = self._ask("CONFIG", "GET", "append*")
        policy = dict(zip(answer[::2], answer[1::2], strict=True))
        if policy.get(b"appendonly") != b"yes" or policy.get(b"appendfsync") != b"always":
            return False
        return replicas == 0 or bool(self._ask("WAIT", replicas, patience) >= replicas)


def _connection(settings: RedisSettings, *, timeout_ms: int) -> Any:
    more: dict[str, Any] = {"ssl_ca_certs": settings.tls_ca_file} if settings.tls_ca_file else {}
    if not settings.url.startswith("unix://"):
        more["socket_connect_timeout"] = settings.timeout_ms / 1000
    pool = ConnectionPool.from_url(
        settings.url,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        protocol=2,
        socket_timeout=timeout_ms / 1000,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        **more,
    )
    return pool.make_connection()


def _where(settings: RedisSettings) -> str:
    """The server's address for messages, without any user information the URL may hold."""
    parts = urlsplit(settings.url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


@contextmanager
def _redis_errors(where: str, doing: str) -> Iterator[None]:
    try:
        yield
    except (AuthenticationError, NoPermissionError) as cause:
        raise ConfigError(f"{doing} at {where}: {cause}; check redis.username and redis.password") from cause
    except (RedisError, OSError) as cause:
        raise Transient(f"{doing} at {where}: {cause}") from cause

"""The key-value buckets of an app: the builds' manifests, and the leases of runs that a room has."""

from __future__ import annotations

import nats.js.errors
import orjson
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from fairlead.bus import Bus
from fairlead.storing import ACK_WITHIN


async def _bucket(bus: Bus) -> KeyValue:
    """That of the manifests; the first worker makes it."""
    name = bus.subjects.manifests
    try:
        return await bus.jetstream.key_value(name)
    except nats.js.errors.NotFoundError:
        config = KeyValueConfig(name, replicas=bus.options.replicas)
        return await bus.jetstream.create_key_value(config)


async def ensure_leases(bus: Bus, ttl: float) -> None:
    """Create the bucket of the leases; what is not written again is forgotten after `ttl` seconds."""
    config = KeyValueConfig(bus.subjects.leases, ttl=ttl, replicas=bus.options.replicas)
    try:
        await bus.jetstream.key_value(bus.subjects.leases)
    except nats.js.errors.NotFoundError:
        await bus.jetstream.create_key_value(config)


async def put_manifest(bus: Bus, digest: str, manifest: bytes) -> int:
    """Write a build's manifest unless it is there; return its generation.

    The generation is the count of the bucket when it was first written, so it tells
    which of two builds is the newer one.
    """
    bucket = await _bucket(bus)
    try:
        return await bucket.create(digest, manifest)
    except nats.js.errors.KeyWrongLastSequenceError:
        return (await get_manifest(bus, digest))[0]


async def get_manifest(bus: Bus, digest: str) -> tuple[int, bytes]:
    """(generation, manifest) of a build.

    Raises:
        LookupError: it was never written.
    """
    try:
        bucket = await bus.jetstream.key_value(bus.subjects.manifests)
        entry = await bucket.get(digest)
    except (nats.js.errors.KeyNotFoundError, nats.js.errors.NotFoundError):
        raise LookupError(f"no manifest {digest}") from None
    return entry.revision or 0, entry.value or b""


async def has_manifest(bus: Bus, digest: str) -> bool:
    """Whether a build's was ever written."""
    try:
        await get_manifest(bus, digest)
    except LookupError:
        return False
    return True


async def manifests(bus: Bus) -> dict[str, tuple[int, bytes]]:
    """All builds that were ever written: digest → (generation, manifest)."""
    # Not by the client's `keys`, which makes a consumer for each edge that starts: the leader
    # of the bucket's stream knows them.
    name, prefix = f"KV_{bus.subjects.manifests}", f"$KV.{bus.subjects.manifests}."
    asked = orjson.dumps({"subjects_filter": prefix + ">"})
    info = orjson.loads(await bus.request(f"$JS.API.STREAM.INFO.{name}", asked, within=ACK_WITHIN))
    if info.get("error", {}).get("code") == 404:
        return {}  # no worker was ever there
    keys = [key.removeprefix(prefix) for key in info["state"].get("subjects") or {}]
    return {digest: await get_manifest(bus, digest) for digest in keys}

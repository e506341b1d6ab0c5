"""Answers that are small on the wire and huge once they are unpacked."""

import functools
import zlib


@functools.cache
def packed(block: bytes, times: int) -> bytes:
    """Return a block repeated, as gzip; it is packed once and its packed form repeated."""
    packer = zlib.compressobj(wbits=-15)
    once = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # needs nothing before it
    crc = 0
    for _ in range(times):
        crc = zlib.crc32(block, crc)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    size = len(block) * times % (1 << 32)
    tail = crc.to_bytes(4, "little") + size.to_bytes(4, "little")
    return head + once * times + packer.flush() + tail

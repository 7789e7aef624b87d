"""Encrypts segments on their way to a tier, and decrypts what is read there.

Owns the cipher, AES-256-GCM of the package `cryptography`, and a buffer of segment size for each
I/O thread. Never keeps or shows the key, which lies in the session (format/session.py). Always
holds: no nonce is used twice, as each is made of the number of a write and of a chunk; a chunk is
let out only if its tag fits key and nonce. The nonce is known from RAM and never read from the
tier, so the tag fits only what this write put into this block: bytes that were changed, moved to
another block, slot or tier, or left from an earlier write, are not decrypted. No associated data is
needed for that.

`cryptography` is imported when the first Cipher is made: only instances with --encrypt shall pay
for it, 8 MB of resident memory.
"""

from vswapfs.backing.scratch import Scratch
from vswapfs.daemon.io_threads import TIER_IO_THREADS
from vswapfs.errors import HostError
from vswapfs.format.chunk import BLOCK_BYTES, ENCRYPTED_CHUNK_BYTES, NONCE
from vswapfs.format.tier import SEGMENT_HEADER_BYTES


class DecryptError(Exception):
    """Not what was written there."""


def check_library() -> None:
    """Raises HostError if there is nothing to encrypt with."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        AESGCM.encrypt_into  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise HostError(
            "--encrypt",
            f"the package cryptography, from version 47 on, cannot be used: {error}",
            remedy="pip install --upgrade cryptography, in the environment of vswapfs",
        ) from None


class Cipher:
    """Under one key. Any number of threads may use it at once."""

    def __init__(self, key: bytes, segment_bytes: int) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead = AESGCM(key)
        self._invalid = InvalidTag
        self.segments = Scratch(segment_bytes, TIER_IO_THREADS)
        # What the library does at its first use, it does now, and not when memory is short. Under
        # number 0, which no write has.
        with self.segments.buffer() as buffer:
            block = self.encrypt(0, memoryview(bytes(SEGMENT_HEADER_BYTES)), 1, buffer)
            self.decrypt_chunk(0, 0, block)

    def encrypt(
        self, write_number: int, segment: memoryview, fill_bytes: int, into: memoryview
    ) -> memoryview:
        """The blocks of a segment, in ``into``; the place of the header is left as it was there.

        ``segment``: its bytes in RAM, at least up to the fill. Once only for a write number.
        """
        encrypt_into, pack = self._aead.encrypt_into, NONCE.pack
        at = 0
        for number, start in enumerate(range(0, fill_bytes, ENCRYPTED_CHUNK_BYTES)):
            chunk = segment[start : start + ENCRYPTED_CHUNK_BYTES]
            block = into[at : at + BLOCK_BYTES]
            if len(chunk) < ENCRYPTED_CHUNK_BYTES:
                chunk = memoryview(bytes(chunk).ljust(ENCRYPTED_CHUNK_BYTES, b"\0"))
            if number == 0:
                chunk, block = chunk[SEGMENT_HEADER_BYTES:], block[SEGMENT_HEADER_BYTES:]
            encrypt_into(pack(write_number, number), chunk, None, block)
            at += BLOCK_BYTES
        return into[:at]

    def decrypt_chunk(self, write_number: int, number: int, block: memoryview) -> bytes:
        """The bytes of the segment that are in one block; zeros in place of the header.

        Raises DecryptError.
        """
        clear_bytes = 0 if number else SEGMENT_HEADER_BYTES
        try:
            found = self._aead.decrypt(NONCE.pack(write_number, number), block[clear_bytes:], None)
        except self._invalid:
            raise DecryptError from None
        return found if number else bytes(clear_bytes) + found

    def decrypt(self, write_number: int, blocks: memoryview, into: memoryview) -> list[int]:
        """A segment from its blocks, as far as ``into`` goes; returns the numbers of those that are
        not what was written, whose bytes are zero then."""
        bad = []
        for number, at in enumerate(range(0, len(blocks), BLOCK_BYTES)):
            start = number * ENCRYPTED_CHUNK_BYTES
            target = into[start : start + ENCRYPTED_CHUNK_BYTES]
            try:
                chunk = self.decrypt_chunk(write_number, number, blocks[at : at + BLOCK_BYTES])
                target[:] = chunk[: len(target)]
            except DecryptError:
                target[:] = bytes(len(target))
                bad.append(number)
        return bad

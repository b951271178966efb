"""CRC-32 as zlib and PNG compute it (ISO 3309), by ISA-L where there is a wheel of it.

ISA-L uses the processor's carry-less multiplication: a quarter of zlib's time for a record.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]

"""The wire dialects, one folder each: wire.py encode.py decode.py. Pure: no aiohttp, grpc or asyncio here."""

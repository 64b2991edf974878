"""What a service holds once what it held is let go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Blocks as large as prompts are, and between them small ones that stay, as whatever else happens meanwhile leaves some.
# These are too large for Python's own allocator, which has pages of its own.
SCRIPT = """
import asyncio, re, sys
from pathlib import Path
from trestle import memory

PATIENCE, SIZE, MANY = map(int, sys.argv[1:])

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

async def main():
    memory.settle()
    before = resident()
    large, small = [], []
    for _ in range(MANY):
        large.append(b"x" * SIZE)
        small.append(b"x" * 2000)
    held = resident() - before
    large.clear()
    async with asyncio.timeout(PATIENCE):
        while resident() - before > held / 4:
            await asyncio.sleep(0.05)
    print(held)

asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here, which tells of memory")
@pytest.mark.parametrize(("size", "many"), [(200_000, 400), (3_000_000, 30), (10_000_000, 8), (50_000_000, 2)])
def test_memory_goes_back_to_the_system_though_something_stays_beside_it(size: int, many: int) -> None:
    command = (sys.executable, "-c", SCRIPT, "20", str(size), str(many))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > size * many * 0.9

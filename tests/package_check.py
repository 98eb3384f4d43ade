"""Packs the function as Lambda takes it, out of the release binary that tests/run has built, and says how
large it is. Exits 1 if Lambda would not take it, or could not start it.

    tests/package_check.py [target/release/bootstrap]

It is not `cargo lambda build`, which compiles everything a second time, for another processor's level and
by another linker; `sam build` does that. What is in the package is the same one file.
"""

import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path

# Lambda's quotas: a package that is uploaded directly, and one unpacked, in bytes.
MAX_ZIP_LEN = 50 * 1024 * 1024
MAX_UNPACKED_LEN = 250 * 1024 * 1024
# The C library of provided.al2023.
GLIBC = (2, 34)
MACHINES = {62: "x86_64", 183: "arm64"}


def main():
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    program = Path(sys.argv[1]) if len(sys.argv) > 1 else target / "release/bootstrap"
    content = program.read_bytes()
    faults = []
    if content[:4] != b"\x7fELF":
        faults.append(f"{program} is no program for Linux")
    machine = MACHINES.get(int.from_bytes(content[18:20], "little"), "another processor")
    versions = {tuple(map(int, found.split(b"."))) for found in re.findall(rb"GLIBC_(\d+\.\d+)", content)}
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "bootstrap.zip"
        with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as files:
            entry = zipfile.ZipInfo("bootstrap")
            entry.external_attr = 0o100755 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            files.writestr(entry, content)
        with zipfile.ZipFile(package) as files:
            (entry,) = files.infolist()
            if entry.filename != "bootstrap" or entry.external_attr >> 16 & 0o111 != 0o111 or files.testzip():
                faults.append(f"the package does not hold a program named bootstrap: {entry}")
        packed = package.stat().st_size
    if packed > MAX_ZIP_LEN or len(content) > MAX_UNPACKED_LEN:
        faults.append(f"too large for Lambda: {packed} bytes, {len(content)} unpacked")
    for fault in faults:
        print(f"package: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    newest = max(versions, default=(0, 0))
    print(
        f"package: bootstrap for {machine}, {packed / 1e6:.1f} MB, {len(content) / 1e6:.1f} MB unpacked, for glibc "
        f"{newest[0]}.{newest[1]} or newer"
    )
    if newest > GLIBC:
        print(
            f"package: provided.al2023 has glibc {GLIBC[0]}.{GLIBC[1]}, so this one would not start there; `sam build` links "
            "for that one"
        )


if __name__ == "__main__":
    main()

"""Pages in a real Chromium that has no network."""

import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
)


def browse(folder, path, *flags):
    """What Chromium prints for the page `path`, and the lines of its console."""
    assert CHROMIUM is not None
    data = folder / f"profile-{abs(hash((path.name, flags)))}"
    result = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={data}", *flags, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return result.stdout, console

"""Audit the LeNet of the full run and take the README's picture of the page: `python docs/audit_page.py`.

It needs chromium, or a browser that takes the same options, on the path.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "audit.png"
COMMAND = (
    "audit results/reproduction/models/LeNet-eb04ec8965d9.safetensors --architecture LeNet --rule captum "
    "--images 100 --no-remedies --fail-on never --seed 0"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = "1000,1690"


def main() -> None:
    """Audit, draw the page, take its picture."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"There is no browser to take a picture with. Install one of {', '.join(BROWSERS)}.")
    with TemporaryDirectory() as folder:
        page = Path(folder) / "audit.html"
        audit = [sys.executable, "-m", "disintegrate.cli", *shlex.split(COMMAND), "--page", str(page)]
        subprocess.run(audit, check=True, cwd=ROOT)  # noqa: S603  the command above
        picture = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder}/profile", "--blink-settings=preferredColorScheme=1", f"--window-size={SIZE}",
            f"--screenshot={PICTURE}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(picture, check=True, capture_output=True)  # noqa: S603  the browser found on the path


if __name__ == "__main__":
    main()

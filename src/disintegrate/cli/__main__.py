"""`python -m disintegrate.cli`."""

from disintegrate.cli import main

main()

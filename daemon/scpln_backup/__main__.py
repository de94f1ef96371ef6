"""`python -m scpln_backup`."""

from scpln_backup.cli.entry import main

main()

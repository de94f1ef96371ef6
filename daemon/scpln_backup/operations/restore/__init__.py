"""The way back: an artifact in the live database's place, or everything exactly as it was."""

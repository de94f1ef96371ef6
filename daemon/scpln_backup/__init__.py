"""Backups of scpln's SQLite database: consistent, proven, swept, measured."""

__version__ = "0.1.0"

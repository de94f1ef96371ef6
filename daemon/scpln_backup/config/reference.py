NEEDS_RESTART = frozenset({"state.directory", "web.listen", "web.max_connections"})

"""The status page: from what the daemon knows (`view`) to HTML (`render`)."""

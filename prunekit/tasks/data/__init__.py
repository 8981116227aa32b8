"""Where rows come from: files, folders, memory or the hub, read at once or streamed."""

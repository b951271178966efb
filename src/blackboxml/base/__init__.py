"""What the rest stands on: files, names, numbers, processes; nothing of it knows of a run."""

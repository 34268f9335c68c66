"""What each command of `cascade-train` does, by its name, and what several of them need."""

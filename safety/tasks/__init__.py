"""Our own tasks, and what may be asked in them. `safety.tasks.spec` needs no simulator; `safety.tasks.zones` does."""

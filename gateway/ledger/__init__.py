"""One row for every request, whatever became of it: from its record to a local outbox, and from there to the
database."""

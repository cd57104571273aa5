"""From a stream of batches to a statement: run the attacks, count, combine, record."""

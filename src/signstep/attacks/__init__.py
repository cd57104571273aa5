"""The papers: a short function each, over the engine; and the table of them all."""

"""The guard: a model in production that refuses, asks a person, notices who is probing it, and says so."""

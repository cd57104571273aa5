"""Is the number real? Tests that doubt an attack, cures that adapt it, a verdict (`signstep.diagnose` is the verb)."""

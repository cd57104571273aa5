"""Files and folders that appear whole or not at all, and what is refused in those of others."""

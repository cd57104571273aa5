"""What must happen before anything else is imported."""

import sys
from pathlib import Path

# `python -m` puts the current folder before the standard library. That folder may be a report that somebody else made,
# with a torch.py or json.py of its own; a model is imported from the current folder only when it is named.
_RUN = any(word.endswith("signstep.cli") for word in sys.orig_argv)
if _RUN and sys.argv[:1] == ["-m"] and sys.path and sys.path[0] in ("", str(Path.cwd())):
    del sys.path[0]

"""Print what the project depends on, with the extras named as arguments, one line each.

The image installs these before it copies the sources, so that an edit does not fetch them again.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
lines = project["build-system"]["requires"] + project["project"]["dependencies"]
for extra in sys.argv[1:]:
    lines += project["project"]["optional-dependencies"][extra]
sys.stdout.write("\n".join(lines) + "\n")

"""Shows the report of a run as text. Usage: summary.py REPORT.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins"))

from module_utils.control.text import run_summary

if __name__ == "__main__":
    print(run_summary(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))

"""Write what the chart's values mean: the schema's settings, and the table in its README.

    python deploy/helm/reference.py            # write both
    python deploy/helm/reference.py --check    # write nothing; exit 1 where a file would change

`values.schema.json` describes each key once. The keys of `settings` are the server's own, so their
names, types and limits come from `sensorium_server.settings`.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sensorium_server.settings import Settings

CHART = Path(__file__).parent / "sensorium"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
SET_BY_CHART = re.compile(r"profile|repository|host|cache_dir|\w+_port|grpc_tls_\w+")
"""Addresses, paths and TLS files, which the templates know."""

_TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- end of values -->)", re.DOTALL)


def settings_schema() -> dict[str, Any]:
    """Return the JSON schema of each setting that a profile in the chart may hold."""
    known = Settings.model_json_schema()["properties"]
    return {
        name: {key: value for key, value in facts.items() if key not in {"default", "title"}}
        for name, facts in known.items()
        if not SET_BY_CHART.fullmatch(name)
    }


def schema_text() -> str:
    """Return the schema with the settings of today."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["properties"]["settings"]["properties"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def readme_text() -> str:
    """Return the README with the table of today."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = ["| key | default | meaning |", "|---|---|---|", *_rows(schema, values)]
    return _TABLE.sub(lambda _: "\n".join(lines) + "\n", README.read_text(encoding="utf-8"))


def _rows(schema: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a line for each key that is set as a whole."""
    for name, facts in schema["properties"].items():
        key, default = prefix + name, values.get(name)
        if "properties" in facts and name != "settings":
            yield from _rows(facts, default or {}, f"{key}.")
        else:
            shown = "" if default in (None, "") else f"`{json.dumps(default)}`"
            yield f"| `{key}` | {shown} | {facts['description']} |"


def main() -> int:
    """Write the files, or with `--check` tell which are behind."""
    behind = []
    for path, text in ((SCHEMA, schema_text), (README, readme_text)):
        wanted = text()
        if path.read_text(encoding="utf-8") != wanted:
            behind.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(wanted, encoding="utf-8")
    if behind and "--check" in sys.argv:
        print(f"{', '.join(behind)} is behind. Run: python deploy/helm/reference.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

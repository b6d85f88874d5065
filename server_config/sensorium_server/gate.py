"""The gate: a bundle is served when its parity card has passed, and is of these very files.

`sensorium verify` writes `NAME.card.json` beside `NAME.manifest.json`. It holds the digest of that
manifest, which holds those of all artefacts: whatever is exported anew must be proven anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium_server.manifest import SUFFIX, digest

CARD_SUFFIX = ".card.json"
WAY_OUT = "Prove it: "
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found of a bundle: its inputs, and what was not PyTorch's."""

    passed: bool
    inputs: int
    failures: Sequence[str]


def write_verdict(repository: Path, bundle: str, verdict: Verdict) -> None:
    """Write a bundle's card beside its manifest; without a manifest there is nothing to bind it."""
    manifest = repository / f"{bundle}{SUFFIX}"
    if not manifest.is_file():
        return
    values = {
        "bundle": bundle,
        "manifest": digest(manifest),
        "passed": verdict.passed,
        "inputs": verdict.inputs,
        "failures": list(verdict.failures[:_SHOWN]),
    }
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (repository / f"{bundle}{CARD_SUFFIX}").write_text(text, encoding="utf-8")


def check_verified(repository: Path) -> None:
    """Check that every bundle of a repository has been proven as it is.

    Raises:
        ConfigurationError: Some have not; all of them are named, with the way out.
    """
    manifests = sorted(repository.glob(f"*{SUFFIX}"))
    problems = [problem for manifest in manifests if (problem := problem_of(manifest))]
    if problems:
        raise ConfigurationError(
            "\n".join(problems)
            + f"\n{WAY_OUT}sensorium verify CHECKPOINT --repository {repository}. "
            f"To serve it as it is: --allow-unverified."
        )


def problem_of(manifest: Path) -> str | None:
    """Return why the bundle of a manifest is not proven; None when it is."""
    bundle = manifest.name.removesuffix(SUFFIX)
    card = manifest.with_name(f"{bundle}{CARD_SUFFIX}")
    if not card.is_file():
        return f"the bundle {bundle} has not been verified: {card.name} is missing"
    try:
        values: Mapping[str, Any] = json.loads(card.read_text(encoding="utf-8"))
        proven, passed, failures = (values[key] for key in ("manifest", "passed", "failures"))
    except (ValueError, KeyError, TypeError):
        return f"the bundle {bundle} has not been verified: {card.name} cannot be read"
    if proven != digest(manifest):
        return f"the bundle {bundle} has been exported anew since it was verified"
    if passed is not True:
        listed = "".join(f"\n  {failure}" for failure in failures)
        return f"the bundle {bundle} differs from PyTorch:{listed}"
    return None

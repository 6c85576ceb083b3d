"""What others may see of a run's texts: without secrets, and without what its tasks have printed. Pure.

Secrets are known by their value, or by what stands before them: a name that says so, an option, a header, the user
of a URL. What stands after such a word and is none is removed too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pilotflow.units import counted

REMOVED: Final = "[removed]"
_WORDS: Final = (
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?|COOKIE|JWT|AUTHORIZATION"
)
_NAME: Final = rf"[A-Za-z0-9_]*(?:{_WORDS})[A-Za-z0-9_]*|(?:[A-Za-z0-9]+_)+(?:KEY|PAT|PW|PWD|PASS|AUTH)"
_SENSITIVE: Final = re.compile(_NAME, re.IGNORECASE)
_VALUE: Final = r"(?:(?:bearer|basic)\s+)?(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"]+)"
_ASSIGNED: Final = re.compile(rf"(?i)(?<![A-Za-z0-9_])({_NAME})(\\?[\"']?\s*[=:]\s*)({_VALUE})")
_OPTION: Final = re.compile(
    rf"(?i)(?<!\S)(--?[a-z0-9-]*(?:{_WORDS.replace('_?', '-?').lower()}|pass)[a-z0-9-]*)(\s+|=)(?!-)({_VALUE})"
)
_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9+/_.=~-]{6,}")
_IN_URL: Final = re.compile(r"(\w+://[^/\s:@]*:)[^@/\s]+@")
_ALONE: Final = re.compile(r"(\w+://)[A-Za-z0-9_-]{16,}@")
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_OF_BATCH_SYSTEM: Final = re.compile(
    r"(?:slurmstepd|slurmd|srun|sbatch|salloc|mpirun|mpiexec|prte\w*|orted|bash|/\S*\.sh|pilotflow)\b[^\n]*?: "
)


def is_sensitive(name: str) -> bool:
    """Whether a variable's name says that its value is a secret."""
    return _SENSITIVE.fullmatch(name) is not None


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Text without secrets.

    Args:
        text: of any kind: logs, scripts, JSON, YAML.
        secrets: values that are known to be some.
    """
    for secret in sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    text = _PEM.sub(REMOVED, text)
    text = _ASSIGNED.sub(rf"\1\2{REMOVED}", text)
    text = _OPTION.sub(rf"\1\2{REMOVED}", text)
    text = _SCHEME.sub(rf"\1\2{REMOVED}", text)
    return _ALONE.sub(rf"\1{REMOVED}@", _IN_URL.sub(rf"\1{REMOVED}@", text))


def without_output(text: str) -> str:
    """What a block has printed, without lines that its tasks may have printed: only those of the batch system remain."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if _OF_BATCH_SYSTEM.match(line)]
    lost = len(lines) - len(kept)
    return "".join(kept) + (f"[left out, as tasks may have printed them: {counted(lost, 'line')}]\n" if lost else "")

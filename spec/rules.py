"""The rules of the specification as data: parse the prose, and keep `rules.json` equal to it.

    python spec/rules.py                        is rules.json what the prose says? 1 if not
    python spec/rules.py --accept BB-JNL-004    take over the change of that rule
    python spec/rules.py --accept all           take over every change

A rule that is new, that says something else than before, or that is gone stays as it is in
`rules.json` until it is accepted by its id: no rule changes by accident.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent / "1.0"
CATALOGUE: Final = "rules.json"
FORMAT: Final = {"name": "blackbox-rules", "version": "1.0"}

THINGS: Final = ("directory", "manifest", "config", "journal", "media", "table", "dataset", "sums")
PROGRAMS: Final = ("writer", "reader", "sealer", "repairer", "validator", "program")
CHECKED: Final = ("schema", "structure", "integrity", "data", "behaviour")
LEVELS: Final = ("MUST NOT", "MUST", "SHOULD NOT", "SHOULD", "MAY")

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CHAPTER = re.compile(
    r"^\| \[[^\]]+\]\((?P<file>[a-z-]+)\.md\) \| (?P<area>[A-Z]{3}) \|", re.MULTILINE
)
_RULE = re.compile(
    r"\*\*(?P<id>BB-(?P<area>[A-Z]{3})-[0-9]{3})\*\* \*(?P<slug>[a-z0-9]+(?:-[a-z0-9]+)*)\* "
    rf"\((?P<applies_to>{'|'.join(THINGS + PROGRAMS)}); (?P<checked>{'|'.join(CHECKED)})"
    r"(?P<mended>; mended)?\) — (?P<text>\S.*)",
)
_KEYWORD = re.compile(
    r"\b(?:MUST NOT|MUST|SHALL NOT|SHALL|SHOULD NOT|SHOULD|NOT RECOMMENDED|RECOMMENDED|REQUIRED"
    r"|MAY|OPTIONAL)\b"
)
_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")
_ITEM = re.compile(r"\n(?= *(?:[0-9]+\.|-) )")

Rule = dict[str, Any]


class RuleError(ValueError):
    """A paragraph opens like a rule and is none."""


def chapters(folder: Path = FOLDER) -> dict[str, str]:
    """Return the area of each chapter, in the order of the table of chapters."""
    found = _CHAPTER.findall((folder / "README.md").read_text("utf-8"))
    return dict(found)


def paragraphs(path: Path) -> list[str]:
    """Return the paragraphs of a chapter as they stand, examples left out."""
    prose = _FENCE.sub("", path.read_text("utf-8"))
    return [each.strip("\n") for each in re.split(r"\n\s*\n", prose) if each.strip()]


def parse(folder: Path = FOLDER) -> list[Rule]:
    """Return every rule, by chapter and number.

    Raises:
        RuleError: If a paragraph opens like a rule and is none, or two rules share an id or slug.
    """
    found: list[Rule] = []
    for chapter, area in chapters(folder).items():
        texts = paragraphs(folder / f"{chapter}.md")
        own = [
            _rule(chapter, area, text, following)
            for text, following in zip(texts, [*texts[1:], ""], strict=True)
            if text.startswith("**BB-")
        ]
        found += sorted(own, key=lambda rule: str(rule["id"]))
    for key in ("id", "slug"):
        seen: set[str] = set()
        for rule in found:
            if rule[key] in seen:
                raise RuleError(f"{rule['chapter']}.md: two rules have the {key} {rule[key]}")
            seen.add(rule[key])
    return found


def _rule(chapter: str, area: str, paragraph: str, following: str) -> Rule:
    """Return the rule in a paragraph; steps that it speaks of follow it."""
    text = " ".join(paragraph.split())
    match = _RULE.fullmatch(text)
    if match is None:
        raise RuleError(f"{chapter}.md: not of the form of a rule: {text:.120}")
    if match["area"] != area:
        raise RuleError(f"{chapter}.md: {match['id']} is not of the area {area}")
    levels = _KEYWORD.findall(match["text"])
    if len(levels) != 1 or levels[0] not in LEVELS:
        raise RuleError(f"{chapter}.md: {match['id']} has the levels {levels}, wanted one")
    wanted = match["text"]
    if "following" in wanted and following.startswith("1. "):
        steps = (" ".join(step.split()) for step in _ITEM.split(following))
        wanted = "\n".join([wanted, *steps])
    return {
        "id": match["id"],
        "slug": match["slug"],
        "chapter": chapter,
        "level": levels[0],
        "applies_to": match["applies_to"],
        "checked": match["checked"],
        "mended": match["mended"] is not None,
        "text": _LINK.sub(r"\1", wanted),
    }


def load(folder: Path = FOLDER) -> list[Rule]:
    """Return the rules that were accepted; none if there is no catalogue yet."""
    path = folder / CATALOGUE
    if not path.exists():
        return []
    rules: list[Rule] = json.loads(path.read_bytes())["rules"]
    return rules


def render(rules: list[Rule]) -> str:
    """Return the catalogue as it is published."""
    document = {"format": FORMAT, "rules": rules}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def differences(accepted: list[Rule], prose: list[Rule]) -> dict[str, str]:
    """Return what differs, by id: that a rule is new or gone, or what it said and says."""
    before = {str(rule["id"]): rule for rule in accepted}
    after = {str(rule["id"]): rule for rule in prose}
    found: dict[str, str] = {}
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if old is None and new is not None:
            found[name] = f"new: {new['text']}"
        elif new is None and old is not None:
            found[name] = f"gone: {old['text']}"
        elif old is not None and new is not None:
            changed = [key for key in new if old.get(key) != new[key]]
            found[name] = "\n".join(f"{key}: {old.get(key)} → {new[key]}" for key in changed)
    return found


def merge(accepted: list[Rule], prose: list[Rule], ids: set[str]) -> list[Rule]:
    """Return the catalogue with the rules of some ids as the prose has them, the others as before.

    The order is that of the prose; a rule that is gone from it and was not accepted comes last.
    """
    before = {str(rule["id"]): rule for rule in accepted}
    after = {str(rule["id"]): rule for rule in prose}
    merged = []
    for name in [*after, *(name for name in before if name not in after)]:
        rule = after.get(name) if name in ids else before.get(name)
        if rule is not None:
            merged.append(rule)
    return merged


def load_cases(folder: Path) -> list[dict[str, Any]]:
    """Return the cases of a corpus, each with its `category` and `slug`."""
    return [
        {"category": path.parts[-3], "slug": path.parts[-2], **json.loads(path.read_bytes())}
        for path in sorted(folder.glob("*/*/case.json"))
    ]


def uncovered(rules: list[Rule], cases: list[dict[str, Any]]) -> list[str]:
    """Return what a corpus lacks: cases that break a rule, and neighbours that keep it.

    A case shows that a rule is checked if it is about the rule and expects a finding of it. Its
    neighbour is about the rule too, be it among others, and expects none; nothing else is wrong.
    """
    breaking, keeping = set(), set()
    for case in cases:
        found = {finding["rule"] for finding in case["expect"]["findings"]}
        if case["rule"] in found:
            breaking.add(case["rule"])
        elif case["expect"]["verdict"] in {"valid", "incomplete"}:
            keeping |= {case["rule"], *case.get("also", [])} - found
    lacking = []
    for rule in rules:
        if rule["checked"] == "behaviour":
            continue
        if rule["id"] not in breaking:
            lacking.append(f"{rule['id']} {rule['slug']}: no case breaks it")
        if rule["id"] not in keeping:
            lacking.append(f"{rule['id']} {rule['slug']}: no valid case is its neighbour")
    return lacking


def main(arguments: list[str] | None = None, folder: Path = FOLDER) -> int:
    """Check the catalogue, or take over what was accepted; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--accept", nargs="+", metavar="ID", default=[], help="take over these rules, or `all`"
    )
    options = parser.parse_args(arguments)
    try:
        prose = parse(folder)
    except (RuleError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    accepted = load(folder)
    differing = differences(accepted, prose)
    everything = options.accept == ["all"]
    ids = set(differing) if everything else set(options.accept)
    if unknown := sorted(ids - differing.keys()):
        print(f"there is no change of {', '.join(unknown)} to accept", file=sys.stderr)
    merged = merge(accepted, prose, ids)
    path = folder / CATALOGUE
    if ids or everything:
        path.write_bytes(render(merged).encode())
    waiting = {name: what for name, what in differing.items() if name not in ids}
    for name, what in waiting.items():
        print(f"{name}\n    " + what.replace("\n", "\n    "))
    if waiting:
        print(f"\n{len(waiting)} not accepted: python spec/rules.py --accept {' '.join(waiting)}")
        return 1
    if not path.exists() or path.read_bytes() != render(prose).encode():
        print(f"{path.name} does not stand as it is written: python spec/rules.py --accept all")
        return 1
    print(f"{len(prose)} rules")
    return int(bool(unknown))


if __name__ == "__main__":
    sys.exit(main())

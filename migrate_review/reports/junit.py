"""A review as JUnit's XML: a test case for each revision, with a failure for each of its errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from migrate_review.reports import summary
from migrate_review.reports.workflow import shown
from migrate_review.rules.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from migrate_review.review import Review, Reviewed
    from migrate_review.rules.findings import Finding

# Characters that XML 1.0 does not allow.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(review: Review) -> str:
    """Return the report. Warnings, notes and acknowledged findings are in a case's output, and fail nothing."""
    root = ET.Element("testsuites", name="migrate review")
    suite = ET.SubElement(root, "testsuite", name="migrate review", time=f"{review.duration_s:.3f}")
    for one in review.revisions:
        _revision(suite, one)
    for found in review.beside:
        case = ET.SubElement(suite, "testcase", classname="the tree", name=f"{found.revision} {found.rule}", time="0")
        _findings(case, [found])
    cases = list(suite)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", "0")
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _revision(suite: ET.Element, one: Reviewed) -> None:
    statements = one.observation.upgrade.statements if one.observation else ()
    seconds = sum(statement.duration_ms for statement in statements) / 1000
    name = _clean(f"{one.revision.id} {one.revision.description}".strip())
    file = shown(str(one.revision.path))
    case = ET.SubElement(suite, "testcase", classname=file, name=name, file=file, time=f"{seconds:.3f}")
    _findings(case, one.result.standing, [f"acknowledged {each.rule}: {why}" for each, why in one.result.acknowledged])


def _findings(case: ET.Element, findings: Iterable[Finding], more: Iterable[str] = ()) -> None:
    beside = list(more)
    for found in findings:
        if found.severity is Severity.ERROR:
            failure = ET.SubElement(case, "failure", type=found.rule, message=_clean(found.message))
            failure.text = _clean(_text(found))
        else:
            beside.append(f"{summary.heading(found)}\n{_text(found)}")
    if beside:
        ET.SubElement(case, "system-out").text = _clean("\n\n".join(beside))


def _text(found: Finding) -> str:
    where = f"{shown(found.path)}:{found.line or 1}\n" if found.path else ""
    measured = f"Measured: {found.evidence}\n" if found.evidence else ""
    return f"{where}{found.message}\n{measured}The safer way:\n{found.fix}"


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)

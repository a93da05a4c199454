"""Splits SQL: parentheses, commas, and names in quotes."""

from __future__ import annotations


def bare(name: str) -> str:
    """Return a name in the form of PostgreSQL's catalog: without quotes, and in lower case if it had none."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def in_parentheses(text: str) -> tuple[str, str]:
    """Return the content of the parenthesis at the text's beginning, and the rest."""
    depth, quote = 0, ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character == "(") - (character == ")")
            if not depth:
                return text[1:position], text[position + 1 :]
    return text[1:], ""


def split(text: str, separator: str = ",") -> list[str]:
    """Return the parts between the commas that are outside parentheses and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += 0 if quote else (character in "([") - (character in ")]")
        if character == separator and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def unqualified(name: str) -> str:
    """Return a table's name without its schema, in the form of PostgreSQL's catalog."""
    return bare(split(name, ".")[-1].strip())

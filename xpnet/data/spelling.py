"""Numbers as people write them: decimal commas, separated thousands, percent signs and currencies.

``3,14`` has a decimal comma, ``1,234.5`` separated thousands, and ``1,234`` may have either. What a file means by
such cells is decided by those of its cells that leave no doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Cells of a CSV file that hold no value, beside empty ones; in any case, without surrounding blanks.
MISSING = ("NA", "N/A", "#N/A", "NaN", "null", "None", "<NA>", "?")

_SPACES = str.maketrans("", "", " \u00a0\u202f\u2009'’")  # as they separate thousands
_SIGNS = "$€£¥"
_MINUS = "\u2212"  # the minus sign of typography, where keyboards have a hyphen
_POINT = re.compile(r"[+-]?([1-9]\d{0,2}(,\d{3})+|\d+)?([.]\d+)?([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?([1-9]\d{0,2}([.]\d{3})+|\d+)?(,\d+)?([eE][+-]?\d+)?")
_SPACED = re.compile(r"[+-]?[1-9]\d{0,2}([ \u00a0\u202f\u2009'’]\d{3})+([.,]\d+)?")


@dataclass(frozen=True)
class Spelling:
    """How the cells of a CSV file are written.

    Parameters
    ----------
    decimal : {",", "."}, optional
        What stands before the decimals of all numbers; by default the cells say so themselves.
    likely : {",", "."}, default "."
        What is taken for it where they do not.
    missing : tuple of str
        Cells without a value, beside empty ones.
    """

    decimal: str | None = None
    likely: str = "."
    missing: tuple[str, ...] = MISSING

    @property
    def without_value(self) -> frozenset[str]:
        """Cells without a value, as they are compared: without surrounding blanks, in lower case."""
        return frozenset({"", *(text.strip().lower() for text in self.missing)})


def parse_number(text: str, decimal: str = ".") -> float | None:
    """Return the number that a text is, where `decimal` stands before the decimals; None for none.

    Examples
    --------
    >>> parse_number("$1,234.50"), parse_number("12 %"), parse_number("1 234")
    (1234.5, 12.0, 1234.0)
    >>> parse_number("1.234,5", ","), parse_number("3,14", ","), parse_number("3,14")
    (1234.5, 3.14, None)
    """
    pattern, thousands = (_COMMA, ".") if decimal == "," else (_POINT, ",")
    if not pattern.fullmatch(text):  # as most are
        text = _bare(text)
        if _SPACED.fullmatch(text):
            text = text.translate(_SPACES)
        if not pattern.fullmatch(text):
            return None
    try:
        return float(text.replace(thousands, "").replace(",", "."))
    except ValueError:  # nothing but a sign, or nothing
        return None


def _bare(text: str) -> str:
    """A number without blanks around it, percent sign and currency; a sign, also a true minus, may stand before it."""
    text = text.strip().replace(_MINUS, "-")
    sign, rest = (text[0], text[1:].lstrip()) if text[:1] in ("+", "-") else ("", text)
    bare = rest.removesuffix("%").rstrip() if rest.endswith("%") else rest.strip(_SIGNS).strip()
    return sign + bare


def decimal_of(texts: Iterable[str]) -> str | None:
    """Return what stands before the decimals of these texts.

    Returns
    -------
    str or None
        "," or "." where one must; "?" where commas may or may not; "" where nothing says so; None for no numbers.

    Examples
    --------
    >>> decimal_of(["3,14", "1,234"]), decimal_of(["1,234.5"]), decimal_of(["1,234"])
    (',', '.', '?')
    >>> decimal_of(["12%", "1.234"]), decimal_of(["Bern"])
    ('', None)
    """
    commas = False
    fits = {",": True, ".": True}
    for text in texts:
        for decimal in fits:
            fits[decimal] = fits[decimal] and parse_number(text, decimal) is not None
        if not any(fits.values()):
            return None
        commas |= "," in text
    if not fits[","]:
        return "."
    if not fits["."]:
        return "," if commas else ""  # 1.234.567 alone does not make a file one of decimal commas
    return "?" if commas else ""


def advice(texts: Iterable[str], decimal: str = ".") -> str:
    """Return what to do about texts that look like numbers or dates but cannot be read, `decimal` being so; else "".

    Examples
    --------
    >>> advice(["1,234", "5,678"])
    "'1,234' may be a number with a decimal comma or with separated thousands: say --decimal , or --decimal ."
    """
    texts = list(texts)
    if not texts:
        return ""
    said = decimal_of(texts)
    if said in (",", ".") and said != decimal:
        mark = "comma" if said == "," else "point"
        return f"{texts[0]!r} looks like a number with a decimal {mark}: leave out --decimal, or say --decimal {said}"
    if said == "?":
        return (
            f"{texts[0]!r} may be a number with a decimal comma or with separated thousands: say --decimal , or "
            "--decimal ."
        )
    if all(_DATE.fullmatch(text) for text in texts):
        return f"{texts[0]!r} looks like a date: write dates as 2024-12-31 or 31.12.2024"
    return ""


_DATE = re.compile(r"\d{1,4}[/.-]\d{1,2}[/.-]\d{2,4}( \d{1,2}:\d{2}(:\d{2})?)?")

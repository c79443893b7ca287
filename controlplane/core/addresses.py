"""What addresses carry besides names."""


def whole_number(text: str, *, digits: int = 18) -> int | None:
    """`?line=12` as a number; None for what is none. int() alone would also read "٣", " 1" and "1_0"."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None

"""What Ray's workers import too."""


def length(text: str) -> int:
    return len(text)

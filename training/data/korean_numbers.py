"""Numerals of Korean text, spelt out as they are spoken.

Korean has two series of numbers. Sino-Korean ones (일, 이, 삼) are the rule; native ones (한, 두, 세) stand before
the counters of `COUNTERS`. Which one is spoken is ambiguous for some words (번, 분, 대, 장): those are not
listed and read as Sino-Korean. What has no single reading stays in digits: times (3:30), fractions (1/2), dates with
points (2019.3.1), and digits beside Latin letters (mp3, 5km).
"""

from __future__ import annotations

import re

_DIGITS = "영일이삼사오육칠팔구"
_PLACES = ("", "십", "백", "천")
_GROUPS = ("", "만", "억", "조", "경")
LIMIT = 10 ** (4 * len(_GROUPS))
"""Numbers from here on are read digit by digit."""

_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
NATIVE_MOST = 99
_MONTHS = {6: "유", 10: "시"}

_NATIVE = "시간|개|명|사람|마리|살|번째|가지|군데|곳|권|가구|잔|병|그루|송이|켤레|채|척|벌|달|배|통|쌍|자루|조각|바퀴|그릇|접시|끼"
COUNTERS = {"시": 12, **dict.fromkeys(_NATIVE.split("|"), NATIVE_MOST)}
"""Counter → the largest number that is native before it. Hours of the clock beyond 12 are Sino-Korean (14시: 십사시)."""

_ENDINGS = (
    "은|는|이|가|을|를|의|에|도|만|로|으로|와|과|나|씩|쯤|째|인|였|반|전|후|내|당|경|중|정도|미만|동안|까지|부터|마다|"
    "밖에|짜리|처럼|보다|입니"
)
_LONGEST_FIRST = "|".join(sorted(COUNTERS, key=len, reverse=True))
# A counter ends its word or has an ending: 3개, 3개를, but 3개월 (Sino-Korean) and 1달러 hold other words.
_COUNTER = re.compile(rf"\s?({_LONGEST_FIRST})(?=[^가-힣]|$|{_ENDINGS})")
_MONTH = re.compile(r"\s?월")
_RUN = re.compile(r"(?<![0-9A-Za-z])(?<![0-9][.,:/~-])[0-9]++(?:[.,:/~-][0-9]++)*+(?![A-Za-z])")
_NUMBER = re.compile(r"([1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?")
_LIST = re.compile(r"[0-9]+(?:[,~-][0-9]+)+")


def sino(number: int) -> str:
    """``이천이십육`` for 2026; ``ValueError`` below 0 and from `LIMIT` on."""
    if not 0 <= number < LIMIT:
        raise ValueError(f"{number}: there are words for 0 to {LIMIT - 1}")
    groups = []
    for unit in _GROUPS:
        number, part = divmod(number, 10_000)
        groups.append(_group(part) + unit if part else "")
    text = "".join(reversed(groups)) or _DIGITS[0]
    return text[1:] if text.startswith("일만") else text


def native(number: int) -> str:
    """``스물한`` for 21, as it stands before a counter; ``ValueError`` outside of 1 to `NATIVE_MOST`."""
    if not 1 <= number <= NATIVE_MOST:
        raise ValueError(f"{number}: native numbers go from 1 to {NATIVE_MOST}")
    tens, ones = divmod(number, 10)
    return "스무" if number == 20 else _TENS[tens] + _ONES[ones]


def read_numerals(text: str) -> str:
    """``text`` with its digits spelt out where they stood; spaces and everything else stay as they are."""
    return _RUN.sub(_read, text)


def _group(number: int) -> str:
    """1 to 9,999; a one is not spoken before ten, hundred and thousand."""
    places = reversed(list(zip(f"{number:04d}"[::-1], _PLACES, strict=True)))
    return "".join(
        ("" if digit == "1" and place else _DIGITS[int(digit)]) + place
        for digit, place in places
        if digit != "0"
    )


def _read(run: re.Match[str]) -> str:
    found = run[0]
    if number := _NUMBER.fullmatch(found):
        whole, fraction = number[1].replace(",", ""), number[2]
        return f"{_whole(whole)}점{_one_by_one(fraction)}" if fraction else _whole(whole, run)
    if not _LIST.fullmatch(found):
        return found
    # A telephone number begins with a nought and is spoken digit by digit throughout.
    read = (lambda part: _one_by_one(part, "공")) if found[0] == "0" else (lambda part: _whole(part, run))
    return re.sub("[0-9]+", lambda part: read(part[0]), found)


def _whole(digits: str, run: re.Match[str] | None = None) -> str:
    """A whole number, by the word behind its ``run`` where that is given."""
    if len(digits) > 1 and digits[0] == "0":
        return _one_by_one(digits, "공")
    number = int(digits)
    if number >= LIMIT:
        return _one_by_one(digits)
    counter = _COUNTER.match(run.string, run.end()) if run else None
    if counter and 1 <= number <= COUNTERS[counter[1]]:
        return "첫" if number == 1 and counter[1] == "번째" else native(number)
    if run and number in _MONTHS and _MONTH.match(run.string, run.end()):
        return _MONTHS[number]
    return sino(number)


def _one_by_one(digits: str, nought: str = _DIGITS[0]) -> str:
    return "".join(nought if digit == "0" else _DIGITS[int(digit)] for digit in digits)

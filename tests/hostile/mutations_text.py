"""Hostile trees and tables: JSON, TOML, comma- and tab-separated values, XML and plain words."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

__all__ = ["MUTATORS", "hostile_tree"]

WORDS = (
    "",
    " ",
    "x",
    "n/a",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "9" * 400,
    "9" * 5000,
    "0x10",
    "1_000",
    "١٢",
    "²",
    "../../../../etc/passwd",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "a\0b",
    "\0",
    "=1+1",
    '=HYPERLINK("http://x")',
    "@SUM(1)",
    "\x1b[31mred",
    "\u202eexe",
    "A" * 70_000,
    "a/b",
    "é\ud7ff",
    "<script>alert(1)</script>",
    "$(id)",
    "`id`",
    "CON",
    "-rf",
    "\r\n",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63),
    10**30,
    0.5,
    -1.5,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    [1, 2],
    [1e400],
    {"kind": "unet"},
    {"kind": ["unet"]},
    {"$tensor": "x"},
    {"$items": [1]},
    "\ud800",
    [10**6] * 3,
    [2**40],
    [0] * 5,
    list(range(200)),
    *WORDS,
)


def _places(tree: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += _places(value, (*place, key))
    return found


def hostile_tree(tree: Any, rng: random.Random) -> Any:
    """A JSON tree with one to three of its nodes replaced, removed, renamed or nested."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.choice(_places(tree))
        if not place:
            if rng.random() < 0.1:
                tree = rng.choice(VALUES)
            continue
        parent = tree
        for key in place[:-1]:
            parent = parent[key]
        change = rng.randrange(6)
        if change == 0:
            del parent[place[-1]]
        elif change == 1 and isinstance(parent, dict):
            parent[str(rng.choice(WORDS))] = parent.pop(place[-1])
        elif change == 2:
            parent[place[-1]] = [parent[place[-1]]]
        elif (
            change == 3
            and isinstance(parent[place[-1]], int | float)
            and not isinstance(parent[place[-1]], bool)
        ):
            parent[place[-1]] = parent[place[-1]] * rng.choice((-1, 0, 0.5, 2, 1000, 10**9))
        else:
            parent[place[-1]] = rng.choice(VALUES)
        if not isinstance(tree, dict | list):
            break
    return tree


def _tree(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(hostile_tree(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def _json_text(content: bytes, rng: random.Random) -> bytes:
    text = content.decode()
    deep = rng.choice((50, 400, 3000, 100_000))
    return rng.choice(
        (
            b"[" * deep,
            b"[" * deep + b"]" * deep,
            b'{"a":' * deep + b"1" + b"}" * deep,
            re.sub(r"\d+", "1" * 5000, text, count=1).encode(),
            re.sub(r"\d+", "1e999", text, count=1).encode(),
            text.replace("{", '{"format": 1, ', 1).encode(),
            text.encode("utf-16"),
            text.replace(":", "=", 1).encode(),
            b'"' + b"\\u0000" * 10 + b'"',
            b"[" + b"1," * 100_000 + b"1]",
        )
    )


def _toml_value(content: bytes, rng: random.Random) -> bytes:
    lines = content.decode().split("\n")
    named = [number for number, line in enumerate(lines) if "=" in line]
    if not named:
        return content
    number = rng.choice(named)
    key, _, value = lines[number].partition("=")
    value = rng.choice(
        (
            "nan",
            "inf",
            "-1",
            "0",
            "1e400",
            "9" * 30,
            "9" * 5000,
            "true",
            '""',
            '"../../x"',
            '"\\u0000"',
            "[]",
            "[[]]",
            "{}",
            "1979-05-27",
            "[" * 3000,
            "[" * 200 + "]" * 200,
            '"' + "A" * 70_000 + '"',
            "[1, 'a']",
            "0x7fffffffffffffff",
            "'''",
            "1.5",
            '["a", "b"]',
            value + "0",
            "{a.b.c = 1}",
        )
    )
    lines[number] = f"{key}={value}"
    return "\n".join(lines).encode()


def _toml_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.decode().split("\n")
    number = rng.randrange(len(lines))
    change = rng.randrange(6)
    if change == 0:
        lines.insert(number, lines[number])
    elif change == 1:
        lines[number] = rng.choice(WORDS) + lines[number]
    elif change == 2:
        lines.insert(number, ".".join("a" * rng.choice((10, 2000))) + " = 1")
    elif change == 3:
        lines.insert(
            number,
            rng.choice(
                (
                    "[steps]",
                    "[[steps]]",
                    "[[steps.a]]",
                    "[a.b.c]",
                    "steps = 3",
                    'task = "chain"',
                    "out = '/etc/x'",
                )
            ),
        )
    elif change == 4:
        del lines[number]
    else:
        lines = [line.replace("=", ":") if rng.random() < 0.5 else line for line in lines]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _cells(separator: str) -> Callable[[bytes, random.Random], bytes]:
    def change(content: bytes, rng: random.Random) -> bytes:
        rows = [line.split(separator) for line in content.decode().split("\n") if line]
        for _ in range(rng.choice((1, 1, 2, 4))):
            row = rng.choice(rows)
            if not row:
                continue
            column = rng.randrange(len(row))
            what = rng.randrange(8)
            if what < 4:
                row[column] = rng.choice(WORDS)
            elif what == 4:
                del row[column]
            elif what == 5:
                row.insert(column, rng.choice(WORDS))
            elif what == 6:
                rows.append(list(rng.choice(rows)))
            elif len(rows) > 1:
                rows.remove(row)
        return "\n".join(separator.join(row) for row in rows).encode("utf-8", "surrogatepass")

    return change


def _table_text(content: bytes, rng: random.Random) -> bytes:
    text = content.decode()
    return rng.choice(
        (
            text.encode("utf-16"),
            text.encode().replace(b"\n", b"\r"),
            text.encode() + b'"' + b"a" * 200_000,
            text.split("\n")[0].encode(),
            text.encode() + b"\xff\xfe",
            text.replace(",", ";").encode(),
            text.replace("\t", ",").encode(),
            (text.split("\n")[0] + "\n").encode() + b"," * 50_000,
            b"\n" * 1000,
            b"#" + text.encode(),
            text.encode().replace(b"\n", b"\x0b"),
            text.encode().replace(b"\n", b"\0\n"),
            "\n".join(reversed(text.split("\n"))).encode(),
            text.upper().encode(),
            (text + "\n" + text).encode(),
        )
    )


def _words(content: bytes, rng: random.Random) -> bytes:
    """Words of a text replaced."""
    parts = re.split(r"(\s+)", content.decode())
    for _ in range(rng.choice((1, 1, 2, 5))):
        parts[rng.randrange(len(parts))] = rng.choice(WORDS)
    return "".join(parts).encode("utf-8", "surrogatepass")


def _xml(content: bytes, rng: random.Random) -> bytes:
    text = content.decode()
    change = rng.randrange(5)
    if change == 0:
        laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
        text = re.sub(r"<!DOCTYPE[^>]*>", "", text).replace(
            "<GIFTI", f'<!DOCTYPE GIFTI [<!ENTITY l0 "lol">{laughs}]><GIFTI', 1
        )
        text = text.replace("<MetaData", "<MetaData><MD><Name>&l8;</Name><Value>a</Value></MD>", 1)
    elif change == 1:
        text = re.sub(r"<!DOCTYPE[^>]*>", "", text).replace(
            "<GIFTI", '<!DOCTYPE GIFTI [<!ENTITY x SYSTEM "file:///etc/passwd">]><GIFTI', 1
        )
        text = text.replace("<Data>", "<Data>&x;", 1)
    elif change == 2:
        numbers = list(re.finditer(r'"(\d+)"', text))
        if numbers:
            at = rng.choice(numbers)
            text = text[: at.start()] + f'"{rng.choice((0, -1, 10**9, 2**62, "x", ""))}"' + text[at.end() :]
    elif change == 3:
        text = re.sub(
            r"<Data>.*?</Data>",
            f"<Data>{rng.choice(('', 'AAAA', '====', 'é', 'x' * 999))}</Data>",
            text,
            count=1,
            flags=re.S,
        )
    else:
        names = re.findall(r'(\w+)="', text)
        name = rng.choice(names)
        text = re.sub(
            rf'{name}="[^"]*"',
            f'{name}="{rng.choice(("", "x", "ASCII", "ExternalFileBinary", "GZipBase64Binary", "NIFTI_TYPE_UINT8"))}"',
            text,
        )
    return text.encode()


MUTATORS = {
    "json": (_tree, _tree, _tree, _json_text),
    "toml": (_toml_value, _toml_value, _toml_lines),
    "csv": (_cells(","), _cells(","), _table_text),
    "tsv": (_cells("\t"), _cells("\t"), _table_text),
    "text": (_words, _words, _table_text),
    "xml": (_xml,),
}

"""The command line of every application: verbs that are frozen dataclasses, and what becomes of their errors.

A verb is a frozen dataclass: its fields are the options (tyro), their docstrings the help, its `run()` the work. Heavy
libraries are imported inside `run()`, so help answers at once.

    exit 0    done
    exit 1    failed: one line on standard error says what was expected, what came and what to do
    exit 2    misused: unknown verb or option (with the nearest known one), a value that its option refuses
    exit 130  interrupted by Ctrl-C or SIGTERM; what was saved stays

An exception that is none of the known kinds is a bug: it keeps its traceback, and exits with 1.

`--log-json`, with every verb, makes standard error JSON lines (`radiata_core.json_lines`); the last one has the exit code.
"""

import contextlib
import difflib
import errno
import inspect
import io
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from radiata_core.errors import InputError
from radiata_core.json_lines import JsonLines, json_stderr
from radiata_core.signals import interruptible

__all__ = ["main"]

_LOG_JSON = "--log-json"
_ABOUT_LOG_JSON = (
    f"{_LOG_JSON}, with every verb: each line on standard error is one JSON object (default: plain lines)."
)
_FRAMES = "".join(map(chr, range(0x2500, 0x2580)))  # tyro draws a box around what it explains
_NO_MEMORY = "ran out of memory; use a smaller --batch-size, a smaller grid, or a machine with more"
_SYSTEM = {
    errno.ENOSPC: "no space left on the disk; free some or choose another --out. Earlier files are intact",
    errno.EDQUOT: "the disk quota is used up; free some or choose another --out. Earlier files are intact",
    errno.EACCES: "not permitted to use this file; check its owner and mode",
    errno.EPERM: "not permitted to use this file; check its owner and mode",
    errno.EFBIG: "File too large for a limit (ulimit -f) or for this file system; raise it or choose another --out",
    errno.EROFS: "the file system is read-only; choose another --out",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EISDIR: "expected a file, got a folder; name a file",
    errno.ENOTDIR: "expected a folder, got a file; check the path",
    errno.EEXIST: "it exists already; choose another name or pass --overwrite",
    errno.ENAMETOOLONG: "the file name is too long; choose a shorter one",
    errno.EIO: "the disk failed while reading or writing; copy the data elsewhere and check the disk",
}


def main(app: str, summary: str, verbs: Mapping[str, type], argv: Sequence[str] | None = None) -> int:
    """Exit code of `app verb options…`.

    Args:
        app: Name of the command and of the distribution, e.g. "radiata-t1".
        summary: One sentence for the top of the help.
        verbs: Name → frozen dataclass with a method `run()`.
        argv: Arguments without the program's name; `sys.argv` if None.
    """
    try:
        code = _logged(app, summary, verbs, list(sys.argv[1:] if argv is None else argv), alone=argv is None)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _logged(app: str, summary: str, verbs: Mapping[str, type], arguments: list[str], alone: bool) -> int:
    """Exit code, with the lines of standard error as JSON where that is asked for."""
    if _LOG_JSON not in arguments:
        return _dispatched(app, summary, verbs, arguments, alone)
    arguments = [word for word in arguments if word != _LOG_JSON]
    began = time.monotonic()
    with json_stderr(app, arguments[0] if arguments and arguments[0] in verbs else "") as lines:
        code = _dispatched(app, summary, verbs, arguments, alone)
        lines.finish()
        seconds = round(time.monotonic() - began, 3)
        lines.record("error" if code else "info", f"ended with {code}", exit_code=code, seconds=seconds)
    return code


def _dispatched(
    app: str, summary: str, verbs: Mapping[str, type], arguments: Sequence[str], alone: bool
) -> int:
    """Exit code of the verb that is named first, or of the questions of help and version."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(app, summary, verbs), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(
            f"{app} {_version(app)} (radiata-core {_version('radiata-core')}, Python {sys.version.split()[0]})"
        )
        return 0
    word = arguments[0]
    if word not in verbs:
        near = difflib.get_close_matches(word, verbs, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(verbs)}."
        what = "option" if word.startswith("-") else "verb"
        print(f"{app}: error: unknown {what} {word!r}; {hint} See {app} --help.", file=sys.stderr)
        return 2
    name = f"{app} {word}"
    with _finalisers(keep=alone) as met:
        code = _run(name, verbs[word], arguments[1:], alone)
    if code == 0 and met:
        print(f"{name}: error: {met[0]}", file=sys.stderr)
        return 1
    return code


@contextlib.contextmanager
def _finalisers(keep: bool) -> Iterator[list[str]]:
    """The lines of what finalisers met: a full disk, once more, when HDF5's objects are freed.

    They are not shown one by one, since the command has said it, or says it if that is all that went wrong. Cython shows
    them through both hooks. With `keep`, these stay, since some objects are freed when the process ends.
    """
    met: list[str] = []
    hooks = sys.excepthook, sys.unraisablehook

    def said(error: BaseException | None) -> bool:
        line = _explained(error) if isinstance(error, Exception) else None
        met.extend([] if line is None else [line])
        return line is not None

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not said(error):
            hooks[0](kind, error, trace)

    def unraisable(dropped: Any) -> None:
        if not said(dropped.exc_value):
            hooks[1](dropped)

    sys.excepthook, sys.unraisablehook = uncaught, unraisable
    try:
        yield met
    finally:
        if not keep:
            sys.excepthook, sys.unraisablehook = hooks


def _run(name: str, verb: type, arguments: Sequence[str], alone: bool) -> int:
    """Exit code of a verb; `alone` in its own process."""
    try:
        with interruptible():
            task = _parsed(name, verb, arguments)
            task.run()
            sys.stdout.flush()
        return 0
    except SystemExit as stop:  # tyro: 0 after help, 2 after a mistake it has explained
        if not stop.code:
            print(_ABOUT_LOG_JSON)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt as error:
        if (
            alone
        ):  # objects whose constructor was interrupted complain in their finaliser: not our user's concern
            sys.unraisablehook = lambda _: None
        print(f"{name}: interrupted{_tail(error)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        line = _explained(error)
        if line is None:
            line = f"this is a bug ({type(error).__name__}); please report it with the lines above"
            if isinstance(sys.stderr, JsonLines):
                sys.stderr.record("error", line, traceback=traceback.format_exc())
                return 1
            traceback.print_exc()
        print(f"{name}: error: {line}", file=sys.stderr)
        return 1


def _parsed(name: str, verb: type, arguments: Sequence[str]) -> Any:
    """The verb with its options.

    Misuse (exit 2) is said in one line, like any other input error: what tyro explains in a frame, and what an option's own
    `__post_init__` refuses while tyro builds it.

    Raises:
        SystemExit: help was asked for (0), or the arguments mean nothing (2) and that was said.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                verb,
                prog=name,
                args=list(arguments),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
                registry=_registry(),
            )
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, InputError):
            error = error.__cause__ or error.__context__
        if stop.code:
            line = f"{_unframed(said.getvalue())}. See {name} --help."
            if error is not None:
                line = " ".join(str(error).split())
            said = io.StringIO(f"{name}: error: {line}\n")
        raise
    finally:
        text = said.getvalue()
        if isinstance(sys.stderr, JsonLines) and text:
            text = f"error: {' '.join(text.removeprefix(f'{name}: error: ').split())}\n"
        sys.stderr.write(text)


def _registry() -> Any:
    """How options are read: of `Literal[...] | None` the choices are those that are named, in their order.

    tyro alone counts None among them, and shows them in another order each time.
    """
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def one_of_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str | None] | None:
        parts = [part for part in get_args(info.type) if part is not type(None)]
        if (
            get_origin(info.type) not in (Union, UnionType)
            or len(parts) != 1
            or get_origin(parts[0]) is not Literal
        ):
            return None
        choices = get_args(parts[0])
        if not all(isinstance(choice, str) for choice in choices):
            return None
        return PrimitiveConstructorSpec(
            nargs=1, metavar=f"{{{','.join(choices)}}}", choices=choices, instance_from_str=lambda words: words[0],
            is_instance=lambda value: value is None or value in choices, str_from_instance=lambda value: [str(value)],
        )  # fmt: skip

    return registry


def _unframed(text: str) -> str:
    """What tyro says in a box of several rows, on one line: without its frame, its title and its pointer to the help."""
    rows = [row.strip(_FRAMES + " ") for row in text.splitlines()[1:]]  # the title is the first
    ruled = [not row.strip("-") for row in rows]  # by hyphens where the terminal is ASCII
    whole = "\n".join("" if rule else row for row, rule in zip(rows, ruled, strict=True))
    parts = [" ".join(part.split()) for part in whole.split("\n\n")]
    return "; ".join(part.rstrip(".") for part in parts if part and not part.startswith("For full helptext"))


def _explained(error: Exception) -> str | None:
    """One line for errors that are not bugs, None for those that are."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
    ):
        return _NO_MEMORY
    for number in (
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
    ):  # libraries that write wrap it in their own errors
        if os.strerror(number) in text:
            return _SYSTEM[number]
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return f"{error.filename}: {_SYSTEM[error.errno]}" if error.filename else _SYSTEM[error.errno]
    return None


def _tail(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f": {text}" if text else ""


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


def _overview(app: str, summary: str, verbs: Mapping[str, type]) -> str:
    width = max(map(len, verbs), default=0)
    rows = [f"  {name:<{width}}  {_first_line(verb)}" for name, verb in verbs.items()]
    head = [f"usage: {app} VERB [options]", "", summary, "", "verbs:"]
    foot = ["", _ABOUT_LOG_JSON, f"{app} VERB --help explains one; {app} --version says which this is."]
    return "\n".join(head + rows + foot)


def _first_line(verb: type) -> str:
    text = inspect.getdoc(verb) or ""
    return text.strip().split("\n")[0]

"""Hostile input for every reader of the house: so many files, how many read, refused, failed.

    python tests/hostile/run.py --inputs 10000 --seed 0
    python tests/hostile/run.py --reader nifti --first 1234 --inputs 1     one input again, with its traceback

Input k goes to reader k modulo their number; what it becomes depends on the seed, the reader and its number alone. A child
process does the reading, with a limit of memory (`MEMORY`) and of what a file may declare; it is started again where one
input ends it. Exit 1 if any failed.
"""

import argparse
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MEMORY = 3 * 2**29
"""Bytes of address space that reading one input may add."""
DECLARED = 2**24
"""Bytes that a file may declare in these runs."""
SILENCE = 600
"""Seconds without a word after which the child is ended."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each reader")
    parser.add_argument(
        "--reader", action="append", help="only readers whose name contains this; again for more"
    )
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _work(options: argparse.Namespace) -> None:
    """The child: reads inputs from number `worker` on, and says before and after each what it does."""
    import warnings

    from mutations import mutated
    from readers import READERS
    from watch import limited, outcome

    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    wanted = [r for r in READERS if not options.reader or any(part in r.name for part in options.reader)]
    top = Path(tempfile.mkdtemp(prefix="hostile-"))
    seeds = {}
    for reader in wanted[: options.inputs]:
        folder = top / reader.name
        folder.mkdir()
        reader.make(folder)
        seeds[reader.name] = {
            str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
        }
        reader.read(folder)  # a valid one is read; and what is imported late is imported now
        shutil.rmtree(folder)
        print("{}", flush=True)
    limited(MEMORY)
    before = sorted(top.iterdir())
    for k in range(options.worker, options.inputs):
        reader, number = wanted[k % len(wanted)], options.first + k // len(wanted)
        rng = random.Random(f"{options.seed}/{reader.name}/{number}")
        place, kind = reader.targets[number % len(reader.targets)]
        print(json.dumps({"k": k, "reader": reader.name, "number": number}), flush=True)
        files = dict(seeds[reader.name])
        try:
            files[place] = mutated(kind, files[place], rng)
        except Exception:  # h5py and others refuse to write what is asked of them
            files[place] = files[place][: rng.randrange(len(files[place]))]
        folder = top / "input"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        found = outcome(reader.read, folder)
        if options.keep and found.kind == "failed":
            shutil.copytree(folder, options.keep / f"{reader.name}-{number}", dirs_exist_ok=True)
        shutil.rmtree(folder)
        kind, what, where, trace = found.kind, found.what, found.where, found.trace
        if sorted(top.iterdir()) != before:
            kind, what = "failed", f"wrote {sorted(set(top.iterdir()) - set(before))}"
        print(json.dumps({"kind": kind, "what": what, "where": where, "trace": trace}), flush=True)
    shutil.rmtree(top, ignore_errors=True)


def _lines(stream: IO[bytes]) -> Iterator[dict[str, Any] | None]:
    """What a child says, a line at a time; None when it has been silent for `SILENCE` seconds."""
    ready = selectors.DefaultSelector()
    ready.register(stream, selectors.EVENT_READ)
    rest = b""
    while True:
        if not ready.select(SILENCE):
            yield None
        part = os.read(stream.fileno(), 2**16)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from map(json.loads, whole)


def _watched(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record an input, through as many children as it takes."""
    records: list[dict[str, Any]] = []
    environment = os.environ | {"RADIATA_MAX_BYTES": str(DECLARED), "OMP_NUM_THREADS": "1"}
    while len(records) < options.inputs:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(len(records))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, bufsize=0)
        assert child.stdout is not None
        current: dict[str, Any] = {}
        silent, before = False, len(records)
        for said in _lines(child.stdout):
            if said is None:
                silent = True
                child.kill()
                break
            if "k" in said:
                current = said
            elif "kind" in said:
                records.append(current | said)
                current = {}
                if len(records) % 500 == 0:
                    print(f"{len(records)} of {options.inputs} inputs", file=sys.stderr, flush=True)
        child.stdout.close()
        code = child.wait()
        if current:
            what = "did not end" if silent else f"ended the process ({code})"
            records.append(current | {"kind": "failed", "what": what, "where": "?", "trace": ""})
        elif len(records) == before:
            raise SystemExit(f"the child ended with {code} before its first input")
    return records


def _table(records: list[dict[str, Any]]) -> str:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record["reader"]][record["kind"]] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    lines = ["| reader | inputs | read | refused | failed |", "|---|---:|---:|---:|---:|"]
    for name, row in [*sorted(counts.items()), ("**all**", total)]:
        lines.append(f"| {name} | {row.total()} | {row['read']} | {row['refused']} | {row['failed']} |")
    return "\n".join(lines)


def main() -> int:
    options = _arguments()
    if options.worker is not None:
        _work(options)
        return 0
    began = time.time()
    records = _watched(options)
    print(_table(records))
    failed = [record for record in records if record["kind"] == "failed"]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in failed:
        groups[record["reader"], record["what"], record["where"]].append(record)
    for (reader, what, where), group in sorted(groups.items()):
        print(f"\nFAILED {reader} {group[0]['number']}: {what} at {where} ({len(group)} inputs)")
        print("\n".join("    " + line for line in group[0]["trace"].rstrip().split("\n")[-14:]))
    print(
        f"\n{len(records)} inputs, seed {options.seed}, {len(failed)} failed, {time.time() - began:.0f} s",
        file=sys.stderr,
    )
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
"""Runs queries of Nexmark on this engine and on Apache Flink, over the same file, and compares.

    tests/nexmark/flink/compare.py DIR [--events N] [--queries q0,q1] [--alone] [--core C] [--set NAME=VALUE]

DIR takes Flink (330 MB to download, from PyPI; needs a JDK of Java 17), the events and the outputs. Each engine runs alone,
on one core, over N events and over 3 N; what is printed is the slope: the events in between by the processor time in between,
which leaves out how long a process takes to start and to compile. Both write their output to files, and these are compared as
multisets of rows.
"""

import argparse
import collections
import decimal
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent.parent
VERSION = "2.3.0"
QUERIES = ["q0", "q1", "q2", "q5", "q7", "q8"]

# One slot on one core; a checkpoint each second, as the engine's owner keeps its state each second.
SETTINGS = {
    "parallelism.default": "1",
    "table.local-time-zone": "UTC",
    "execution.checkpointing.interval": "1 s",
    "execution.checkpointing.incremental": "true",
    "state.backend.type": "rocksdb",
}


def install(directory):
    """Flink's libraries and its configuration, without anything of Python's."""
    home = directory / "flink"
    if (home / "lib").exists():
        return home
    download = directory / "download"
    pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", str(download)]
    libraries = f"apache-flink-libraries=={VERSION}"
    subprocess.run(pip + ["--no-binary", ":all:", libraries], check=True)
    subprocess.run(pip + [f"apache-flink=={VERSION}"], check=True)
    unpacked = directory / "unpacked"
    with tarfile.open(next(download.glob("*.tar.gz"))) as archive:
        archive.extractall(unpacked, filter="data")
    with zipfile.ZipFile(next(download.glob("*.whl"))) as archive:
        archive.extractall(unpacked, [n for n in archive.namelist() if n.startswith("pyflink/conf/")])
    home.mkdir(parents=True, exist_ok=True)
    shutil.move(unpacked / "pyflink" / "conf", home / "conf")
    shutil.move(next(unpacked.glob("*/deps/lib")), home / "lib")
    shutil.rmtree(unpacked)
    shutil.rmtree(download)
    return home


def opened(home):
    """What Flink asks Java to open for it."""
    return re.findall(r"--add-(?:exports|opens)=\S+", (home / "conf" / "config.yaml").read_text())


def timed(command, core, **more):
    """Runs a command on one core. Its processor time, and what it printed."""
    child = subprocess.Popen(["taskset", "-c", str(core)] + command, stdout=subprocess.PIPE, text=True, **more)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, said


def flink(home, directory, query, events, out, args):
    shutil.rmtree(out, ignore_errors=True)
    script = directory / f"{query}.sql"
    script.write_text((HERE / "tables.sql").read_text() + (HERE / f"{query}.sql").read_text())
    classes = directory / "classes"
    path = f"{home}/lib/*"
    if not classes.exists():
        subprocess.run(["javac", "-cp", path, "-d", str(classes), str(HERE / "Run.java")], check=True)
    checkpoints = directory / "checkpoints"
    shutil.rmtree(checkpoints, ignore_errors=True)
    settings = SETTINGS | {"execution.checkpointing.dir": checkpoints.as_uri()} | dict(args.set)
    java = ["java"] + opened(home) + [f"-Dlog4j.configurationFile={home}/conf/log4j-cli.properties"]
    java += [f"-Dlog.file={directory}/flink.log", "-cp", f"{classes}:{path}", "Run", str(script)]
    java += [f"EVENTS={events}", f"OUT={out}"] + [f"{name}={value}" for name, value in settings.items()]
    seconds, _ = timed(java, args.core, env=os.environ | {"FLINK_CONF_DIR": str(home / "conf")})
    return seconds


def ours(query, events, out, epoch_ms, args):
    program = REPOSITORY / "target" / "release" / "fulmar-nexmark"
    environment = os.environ | ({"OUT": str(out)} if out else {})
    seconds, said = timed([str(program), "run", query, str(events), str(epoch_ms)], args.core, env=environment)
    return seconds, json.loads(said)


def canonical(value):
    """Times as both write them, numbers by their value."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?Z?", value)
        return f"{found[1]} {found[2]}.{(found[3] or '.')[1:].ljust(3, '0')}" if found else value
    return str(value.normalize()) if isinstance(value, decimal.Decimal) else value


def rows(files):
    counted = collections.Counter()
    for file in files:
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line, parse_float=decimal.Decimal, parse_int=decimal.Decimal)
                counted[tuple(sorted((name, canonical(value)) for name, value in row.items()))] += 1
    return counted


def compare(query, directory, events, args, home):
    """Both outputs over the smaller file. Returns the processor time of both."""
    out = directory / f"{query}.fulmar.json"
    ours(query, events, out, 1000, args)
    theirs = directory / f"{query}.flink"
    seconds = flink(home, directory, query, events, theirs, args)
    files = [file for file in theirs.rglob("*") if file.is_file()]
    left, right = rows([out]), rows(files)
    if left == right:
        print(f"{query}: {sum(left.values())} rows, the same", flush=True)
    else:
        print(f"{query}: DIFFERENT: {sum((left - right).values())} only here, {sum((right - left).values())} only "
              f"there; such as {list((left - right).items())[:1]} and {list((right - left).items())[:1]}", flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--queries", default=",".join(QUERIES))
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="without Flink")
    parser.add_argument("--set", action="append", default=[], type=lambda text: tuple(text.split("=", 1)))
    args = parser.parse_args()
    directory = args.dir.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    beside = [] if args.alone else [query for query in args.queries.split(",") if query in QUERIES]
    home = install(directory) if beside else None
    subprocess.run(["cargo", "build", "-q", "--release", "-p", "fulmar-nexmark"], cwd=REPOSITORY, check=True)
    few, many = args.events, 3 * args.events
    files = {}
    for count in [few, many]:
        files[count] = directory / f"events-{count}.json"
        if not files[count].exists():
            with open(files[count], "wb") as out:
                program = REPOSITORY / "target" / "release" / "fulmar-nexmark"
                subprocess.run([program, "events", str(count)], stdout=out, check=True)
    print("query | Flink | here, 1 s | here, 50 ms | engine alone, 1 s | by Flink, 1 s | commits, 1 s | 50 ms", flush=True)
    for query in args.queries.split(","):
        here, share = {}, {}
        for epoch_ms in [1000, 50]:
            runs = [ours(query, files[count], None, epoch_ms, args) for count in [few, many]]
            here[epoch_ms] = (many - few) / (runs[1][0] - runs[0][0])
            few_s, many_s = [(said["commit_s"], said["engine_s"]) for _, said in runs]
            share[epoch_ms] = f"{(many_s[0] - few_s[0]) / (many_s[1] - few_s[1]):.1%}"
            if epoch_ms == 1000:
                alone = (many - few) / (runs[1][1]["engine_s"] - runs[0][1]["engine_s"])
        commits = f"{share[1000]} | {share[50]}"
        if query not in beside:
            print(f"{query} | - | {here[1000]:,.0f} | {here[50]:,.0f} | {alone:,.0f} | - | {commits}", flush=True)
            continue
        first = compare(query, directory, files[few], args, home)
        second = flink(home, directory, query, files[many], directory / f"{query}.flink", args)
        there = (many - few) / (second - first)
        print(f"{query} | {there:,.0f} | {here[1000]:,.0f} | {here[50]:,.0f} | {alone:,.0f} | "
              f"{here[1000] / there:.2f} | {commits}", flush=True)


main()

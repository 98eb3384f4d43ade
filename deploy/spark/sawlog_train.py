"""Trains a Sawlog model on Apache Spark: the bytes that `sawlog train` would make of all inputs on one machine.

    spark-submit --archives sawlog.tar.gz#sawlog sawlog_train.py \
        --spec sawlog/spec.toml --input s3://bucket/logs/ --output s3://bucket/models/model.sawlog

The archive holds the native program, `sawlog`, and what else the job should find on its machines. The driver
lists the inputs (`sawlog sketch --list`) and packs them into tasks by their bytes. Each task hands its part of
the list to `sawlog sketch` and gives back one sketch; further tasks merge sketches, a bounded number each, until
one is left, of which the driver makes the model. No record passes through Python or the JVM. A sketch is a set
of records chosen by their identities, so a task that runs twice, or dies and runs elsewhere, changes nothing.

Options that are not listed here go to `sawlog sketch`: --trees, --samples, --seed, --shingle and the like.
"""

import argparse
import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile

from pyspark import AccumulatorParam, SparkConf, SparkContext, SparkFiles, TaskContext

# A task's bytes, as they are stored: some minutes of one core's work, so that what a lost machine takes
# with it is soon done again.
TASK_BYTES = 512 << 20
# An object costs a request and the begin of a stream, however small it is.
OBJECT_BYTES = 1 << 20
# Tasks a core at least, so that no core waits long for the last one.
TASKS_PER_CORE = 3
# Sketches that one task merges.
FAN_IN = 32
# How much a failing program's last words may be.
MESSAGE_BYTES = 8192
# Tasks whose rejected records are told of.
TOLD = 20


class Failed(Exception):
    """The job can't go on; the message is for the user."""


class ByTask(AccumulatorParam):
    """What tasks have to say, by their number: said again by a second try, it is said once."""

    def zero(self, value):
        return {}

    def addInPlace(self, ours, theirs):
        return {**ours, **theirs}


def packed(sources, most):
    """Packs (bytes, line) into lists of lines of at most so many bytes; what is larger is alone."""
    tasks, room = [], 0
    for size, line in sorted(sources, reverse=True):
        size = max(size, OBJECT_BYTES)
        if size > room:
            tasks.append([])
            room = most
        tasks[-1].append(line)
        room -= size
    return tasks


def found(name):
    """A file by its path here or, if it came with --archives or --files, where Spark has put it."""
    shipped = SparkFiles.get(name)
    return shipped if os.path.exists(shipped) else name


def end_with_parent():
    """Without this the program of a task that Spark kills would read on for nobody."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(program, arguments, pieces=()):
    """Runs `program` with the bytes of `pieces` as its standard input.

    Returns its output, and what it said beside it. Raises Failed, with exit code and message, if it fails.
    """
    with tempfile.TemporaryFile() as said:
        command = [found(program), *arguments]
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                preexec_fn=end_with_parent,
            )
        except OSError as error:
            raise Failed(f"{program} can't be run: {error}") from error
        with child:
            try:
                for piece in pieces:
                    child.stdin.write(piece)
                child.stdin.close()
            except BrokenPipeError:
                pass  # It has ended: its exit code says why.
            except BaseException:
                child.kill()
                raise
            output = child.stdout.read()
        said.seek(max(0, said.tell() - MESSAGE_BYTES))
        message = said.read().decode(errors="replace").strip()
    if child.returncode:
        how = f"exit code {child.returncode}"
        if child.returncode < 0:
            how = signal.Signals(-child.returncode).name
        raise Failed(f"{program} {arguments[0]} ended with {how}: {message or 'it said nothing'}")
    return output, message


def sketcher(program, spec, threads, options, told):
    """What makes one sketch of a task's lines of the list of inputs, on as many threads as a task has cores."""

    def sketch(tasks):
        for lines in tasks:
            with tempfile.NamedTemporaryFile() as file:
                file.write(spec)
                file.flush()
                arguments = ["sketch", "--spec", file.name, "--input-list", "-", "--threads", threads, *options]
                output, message = run(program, arguments, ["\n".join(lines).encode()])
            if not re.search(r"^rejected +0 ", message, re.MULTILINE):
                told.add({TaskContext.get().partitionId(): message})
            yield output

    return sketch


def merger(program):
    """What makes one sketch of a task's sketches."""

    def merge(sketches):
        first = next(sketches, None)
        if first is not None:
            yield run(program, ["merge", "-"], (piece for part in ([first], sketches) for piece in part))[0]

    return merge


def reason(error):
    """What the task said that failed, without the layers that it came through, which differ from Spark to Spark."""
    text = str(error)
    ours = re.findall(r"\bFailed: (.*?)(?=\n\s*SQLSTATE|\n\s*\n|\n\s+at |\Z)", text, re.DOTALL)
    return ours[-1].strip() if ours else text[:MESSAGE_BYTES]


def store(context, path, target):
    """Puts a file where the user wants it: any file system that the cluster knows."""
    hadoop = context._jvm.org.apache.hadoop.fs
    target = hadoop.Path(target)
    system = target.getFileSystem(context._jsc.hadoopConfiguration())
    system.setWriteChecksum(False)
    system.copyFromLocalFile(False, True, hadoop.Path(f"file://{path}"), target)


def train(args, options, context):
    """Runs the job."""
    with open(found(args.spec), "rb") as file:
        spec = file.read()
    listed, _ = run(args.program, ["sketch", "--list", "--spec", found(args.spec), "--input", *args.input, *options])
    sources = [(int(line.split("\t", 1)[0]), line) for line in listed.decode().splitlines()]
    total = sum(size for size, _ in sources)
    share = total // (TASKS_PER_CORE * context.defaultParallelism)
    tasks = packed(sources, max(min(share, args.task_bytes), OBJECT_BYTES))
    print(f"inputs     {len(sources):,} of {total:,} bytes, in {len(tasks):,} tasks")

    told = context.accumulator({}, ByTask())
    threads = context.getConf().get("spark.task.cpus", "1")
    sketch = sketcher(args.program, spec, threads, options, told)
    sketches = context.parallelize(tasks, len(tasks)).mapPartitions(sketch)
    left = len(tasks)
    while left > 1:
        left = -(-left // FAN_IN)
        sketches = sketches.repartition(left).mapPartitions(merger(args.program))
    try:
        [sketch] = sketches.collect()
    except Exception as error:
        raise Failed(reason(error)) from error
    for task, message in sorted(told.value.items())[:TOLD]:
        print(f"task {task}:\n{message}")

    with tempfile.TemporaryDirectory() as folder:
        part, model = os.path.join(folder, "sketch"), os.path.join(folder, "model")
        with open(part, "wb") as file:
            file.write(sketch)
        arguments = ["train", "--from-sketch", part, "--output", model]
        arguments += ["--max-reject-share", str(args.max_reject_share)]
        if args.threshold:
            arguments += ["--threshold", args.threshold]
        output, _ = run(args.program, arguments)
        print(output.decode().rsplit("\n\nwrote", 1)[0])
        for path, target in [(part, args.sketch), (model, args.output)]:
            if target:
                store(context, path, target)
                print(f"wrote      {target}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--spec", required=True, help="the feature specification: a file here or in the archive")
    parser.add_argument("--input", required=True, nargs="+", help="what `sawlog sketch --input` takes")
    parser.add_argument("--output", required=True, help="where the model goes: a path, or any URI that Spark can write")
    parser.add_argument("--sketch", help="where to put the merged sketch too, for `sawlog train --base`")
    parser.add_argument("--threshold", help="as of `sawlog train`")
    parser.add_argument("--max-reject-share", type=float, default=0.05, help="fail if more of the records are rejected")
    parser.add_argument("--task-bytes", type=int, default=TASK_BYTES, help="most bytes of inputs for one task")
    parser.add_argument("--program", default="sawlog/sawlog", help="the native program, in the archive")
    args, options = parser.parse_known_args()
    with SparkContext.getOrCreate(SparkConf().setAppName("sawlog train")) as context:
        try:
            train(args, options, context)
        except Failed as error:
            sys.exit(f"sawlog_train: no model is written: {error}")


if __name__ == "__main__":
    main()

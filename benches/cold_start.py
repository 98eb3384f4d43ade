"""Starts two functions in turns, each as a new process, and times them from exec to the first answer.

The Runtime API is a socket of this process, so that what is measured is the function; S3 is moto, in
a process of its own. Medians over the rounds; CPU seconds of a process are its own and leave out what
others did on the machine.
"""

import base64
import datetime
import json
import os
import pathlib
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3

TIMEOUT_SECS = 30
LINE = b'{"duration_us": 362453, "n_spans": 50, "fault_active": 0}'


def event():
    record = {"topic": "t", "partition": 0, "offset": 0, "timestamp": 0}
    record["value"] = base64.b64encode(LINE).decode()
    return json.dumps({"eventSource": "aws:kafka", "records": {"t-0": [record]}}).encode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class S3:
    """moto with the model in it."""

    def __init__(self, model):
        self.port = free_port()
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}"
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        keys = {"aws_access_key_id": "AKIALOOPBACK", "aws_secret_access_key": "loopback"}
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="models")
        # So that a bare GET may have it too.
        client.put_object(Bucket="models", Key="model", Body=model, ACL="public-read")

    def fetch_ms(self):
        """A bare GET on a new connection."""
        started = time.perf_counter()
        with urllib.request.urlopen(f"{self.url}/models/model") as answer:
            answer.read()
        return (time.perf_counter() - started) * 1e3


class RuntimeApi:
    """Hands one event to one function."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]

    def request(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, body = data.split(b"\r\n\r\n", 1)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields.get(b"content-length", 0)):
            body += connection.recv(65536)
        return head.split(b" ")[1]

    def serve(self, payload):
        """The times at which the function asked for work, and answered."""
        asked, connections = None, []
        while True:
            # The runtime may open a second connection before it takes the first one up again.
            ready, _, _ = select.select([self.listener, *connections], [], [], TIMEOUT_SECS)
            if not ready:
                raise SystemExit(f"no answer from the function within {TIMEOUT_SECS} s")
            if self.listener in ready:
                connections.append(self.listener.accept()[0])
                continue
            connection = ready[0]
            path = self.request(connection)
            if path is None:
                connections.remove(connection)
                connection.close()
            elif path.endswith(b"/next"):
                asked = time.perf_counter()
                deadline = int(time.time() * 1000) + 60_000
                head = (
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    "Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n"
                    f"Lambda-Runtime-Deadline-Ms: {deadline}\r\n"
                    "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:f\r\n"
                    f"Content-Length: {len(payload)}\r\n\r\n"
                )
                connection.sendall(head.encode() + payload)
            elif path.endswith(b"/response"):
                answered = time.perf_counter()
                connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                for connection in connections:
                    connection.close()
                return asked, answered
            else:
                raise SystemExit(f"the function failed: {path.decode()}")


def start(binary, variables, folder):
    """One cold start: milliseconds by stage."""
    api = RuntimeApi()
    environment = {
        "PATH": "/usr/bin:/bin",
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        # One bundle of roots, as Lambda's image has it; Debian keeps each in a file of its own as well.
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIALOOPBACK",
        "AWS_SECRET_ACCESS_KEY": "loopback",
    }
    log = folder / "log"
    with open(log, "wb") as output:
        wall, started = time.time(), time.perf_counter()
        command = {"env": environment | variables, "stdout": output, "stderr": output}
        process = subprocess.Popen([binary], cwd=folder, **command)
        asked, answered = api.serve(event())
        os.kill(process.pid, signal.SIGKILL)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    api.listener.close()
    stages = {"cpu": (usage.ru_utime + usage.ru_stime) * 1e3}
    stages["total"] = (answered - started) * 1e3
    stages["to first request"] = (asked - started) * 1e3
    stages["invocation"] = (answered - asked) * 1e3
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    for line in map(json.loads, lines):
        if line.get("message") == "model fetched":
            at = datetime.datetime.fromisoformat(line["timestamp"]).timestamp()
            stages["s3 get"], stages["decode"] = line["fetch_ms"], line["decode_ms"]
            stages["before the fetch"] = (at - wall) * 1e3 - line["fetch_ms"] - line["decode_ms"]
    return stages


def main(bootstrap, hello, model, rounds):
    model = pathlib.Path(model).read_bytes()
    s3 = S3(model)
    try:
        measure(bootstrap, hello, s3, int(rounds), len(model))
    finally:
        s3.process.terminate()
        s3.process.wait()


def measure(bootstrap, hello, s3, rounds, model_len):
    ours, theirs, fetches = [], [], []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            variables = {
                "MODEL_URI": "s3://models/model",
                "AWS_ENDPOINT_URL_S3": s3.url,
                "RESULTS_URI": f"file://{folder}/results.jsonl",
                "DEAD_LETTERS_URI": "https://sqs.us-east-1.amazonaws.com/123456789012/dead",
            }
            samples = (start(bootstrap, variables, folder), start(hello, {}, folder), s3.fetch_ms())
        if number:  # The first round warms the file cache and moto.
            for samples_of, sample in zip((ours, theirs, fetches), samples):
                samples_of.append(sample)
    median = lambda samples, key: statistics.median(sample[key] for sample in samples)
    print(f"medians of {rounds} rounds; model {model_len:,} bytes, binary {os.path.getsize(bootstrap):,}")
    print("\n| stage | ms |\n|---|---|")
    for key in ["before the fetch", "s3 get", "decode", "to first request", "invocation", "total", "cpu"]:
        print(f"| {key} | {median(ours, key):.1f} |")
    hello_ms, fetch_ms = median(theirs, "total"), statistics.median(fetches)
    print(f"| hello-world: total | {hello_ms:.1f} |")
    print(f"| hello-world: cpu | {median(theirs, 'cpu'):.1f} |")
    print(f"| bare GET of the model | {fetch_ms:.1f} |")
    ratio = median(ours, "total") / (hello_ms + fetch_ms)
    print(f"\ntotal / (hello-world + bare GET) = {ratio:.2f} (at most 2.5)")


main(*sys.argv[1:])

"""Asks a SageMaker endpoint for scores as a user of boto3 does, in every content type, and prints what
was sent and what came back.

Bodies are made as the serializers of SageMaker's Python SDK make them: rows of float32 through csv, JSON
of plain lists, and RecordIO frames of Record messages. The last are written out by hand here, so that
nothing of the server's own code stands on both sides.
"""

import csv
import io
import json
import struct

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = "requests"
MAGIC = 0xCED7230A
# Points: a scaled number, and one of three categories or another.
ROWS = [[-1.375, 1.0, 0.0, 0.0, 0.0], [0.03125, 0.0, 0.0, 1.0, 0.0], [28000.0, 0.0, 0.0, 0.0, 1.0]]


def as_csv(rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().rstrip("\n").encode()


def as_json(rows):
    return json.dumps({"instances": [{"features": row} for row in rows]}).encode()


def as_json_tensors(rows):
    tensors = [{"data": {"features": {"values": row}}} for row in rows]
    return json.dumps({"instances": tensors}).encode()


def as_sparse_json(rows):
    def tensor(row):
        keys = [key for key, value in enumerate(row) if value]
        return {"keys": keys, "shape": [len(row)], "values": [row[key] for key in keys]}

    return json.dumps({"instances": [{"data": {"features": tensor(row)}} for row in rows]}).encode()


def as_json_lines(rows):
    return "\n".join(json.dumps({"features": row}) for row in rows).encode()


def message(tag, content):
    assert len(content) < 128, "lengths of one byte are all that is needed"
    return bytes([tag << 3 | 2, len(content)]) + content


def as_recordio(rows, sparse=False):
    out = b""
    for row in rows:
        keys = [key for key, value in enumerate(row) if value or not sparse]
        numbers = message(1, struct.pack(f"<{len(keys)}f", *(row[key] for key in keys)))
        if sparse:
            numbers += message(2, bytes(keys)) + message(3, bytes([len(row)]))
        record = message(1, message(1, b"values") + message(2, message(2, numbers)))
        out += struct.pack("<II", MAGIC, len(record)) + record + bytes(-len(record) % 4)
    return out


def as_sparse_recordio(rows):
    return as_recordio(rows, sparse=True)


def from_recordio(body):
    """The scores: each the last four bytes of its message, which has nothing else after them."""
    scores = []
    while body:
        magic, length = struct.unpack_from("<II", body)
        assert magic == MAGIC, hex(magic)
        record, body = body[8 : 8 + length], body[8 + length + -length % 4 :]
        (score,) = struct.unpack("<f", record[-4:])
        want = message(2, message(1, b"score") + message(2, message(2, message(1, record[-4:]))))
        assert record == want, record.hex()
        scores.append(score)
    return scores


def shown(content_type, body):
    if content_type == "application/x-recordio-protobuf":
        return f"{len(body)} bytes"
    return body.decode().replace("\n", "\\n")


def invoke(client, body, **headers):
    print(f"> {headers.get('ContentType')}, accepts {headers.get('Accept')}: ", end="")
    print(shown(headers.get("ContentType"), body) if len(body) < 500 else f"{len(body)} bytes")
    try:
        answer = client.invoke_endpoint(EndpointName=ENDPOINT, Body=body, **headers)
    except ClientError as error:
        said = error.response
        status = said["ResponseMetadata"]["HTTPStatusCode"]
        print(f"< {status} {said['Error']['Code']}: {said['Error']['Message']}")
        if "OriginalStatusCode" in said:
            print(f"  original {said['OriginalStatusCode']}: {said['OriginalMessage']}")
        return None
    body = answer["Body"].read()
    status, content_type = answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentType"]
    print(f"< {status} {content_type} from {answer['InvokedProductionVariant']}: ", end="")
    print(shown(content_type, body))
    if content_type == "application/x-recordio-protobuf":
        return from_recordio(body)
    if content_type == "text/csv":
        return [float(line) for line in body.split()]
    if content_type == "application/jsonlines":
        return [json.loads(line)["score"] for line in body.splitlines()]
    return [entry["score"] for entry in json.loads(body)["scores"]]


def main():
    client = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    requests = [
        ("text/csv", as_csv),
        ("application/json", as_json),
        ("application/json", as_json_tensors),
        ("application/json", as_sparse_json),
        ("application/jsonlines", as_json_lines),
        ("application/x-recordio-protobuf", as_recordio),
        ("application/x-recordio-protobuf", as_sparse_recordio),
    ]
    answers = ["text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf"]
    seen = set()
    for content_type, body in requests:
        for accept in answers:
            scores = invoke(client, body(ROWS), ContentType=content_type, Accept=accept)
            # Text has the shortest number that is the same float32.
            seen.add(struct.pack(f"<{len(ROWS)}f", *scores))
    print(f"{len(requests) * len(answers)} answers, {len(seen)} different in the bits of their scores")

    print("\nwithout Accept, with a variant and an id:")
    invoke(client, as_csv(ROWS), ContentType="text/csv")
    names = {"TargetVariant": "blue", "InferenceId": "batch-17"}
    invoke(client, as_csv(ROWS), ContentType="text/csv; label_size=0", **names)

    print("\nrefused:")
    invoke(client, b"1,0,0,0,1\n1,0,0", ContentType="text/csv")
    invoke(client, b"1 0 0 0 1", ContentType="text/csv")
    invoke(client, b'{"instances":[{"features":[1,0,0,0,"x"]}]}', ContentType="application/json")
    invoke(client, b"{", ContentType="application/json")
    invoke(client, as_recordio(ROWS)[:-1], ContentType="application/x-recordio-protobuf")
    invoke(client, b"", ContentType="text/csv")
    invoke(client, as_csv(ROWS), ContentType="text/plain")
    invoke(client, as_csv(ROWS), ContentType="text/csv", Accept="text/html")
    invoke(client, b"1,0,0,0,1\n" * (1 << 20), ContentType="text/csv")
    invoke(client, b"1,0,0,0,1\n" * 200_001, ContentType="text/csv")


main()

#!/usr/bin/env python3
"""An independent verifier of Prospectus logs: Python's standard library only, written from docs/log-proofs.md.

    verify_log.py proof PROOF.json [--head HEADS] [--key BASE64]
    verify_log.py consistency ANSWER.json --head HEADS [--key BASE64]
    verify_log.py log EVENTS.ndjson --head HEADS [--key BASE64]

PROOF.json is what `prospectus audit prove` prints or GET /v1/log/proofs/inclusion answers, ANSWER.json what
GET /v1/log/proofs/consistency answers. HEADS is a head, lines of heads (PROSPECTUS_HEADS_FILE) or a page of
GET /v1/log/heads. EVENTS.ndjson is the whole log, a line of JSON for each event in position order; docs/log-proofs.md has the
statement that writes it. Without --key, heads on a page are checked with the keys on it, and a proof with the key in it.
Exit code 0 if all is proven, 1 if not.
"""

import argparse
import base64
import hashlib
import json
import struct
import sys
import uuid
from datetime import datetime, timedelta, timezone

# --- Ed25519 (RFC 8032, section 5.1), slow and plain -------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P != 0:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P != 0 or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(number, point):
    result = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = add(result, point)
        point = add(point, point)
        number >>= 1
    return result


def same(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def decompress(data):
    if len(data) != 32:
        return None
    number = int.from_bytes(data, "little")
    y, sign = number & (2**255 - 1), number >> 255
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def ed25519_verifies(public, message, signature):
    if len(signature) != 64:
        return False
    point, commitment = decompress(public), decompress(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if point is None or commitment is None or scalar >= L or same(multiply(8, point), (0, 1, 1, 0)):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    return same(multiply(scalar, BASE), add(commitment, multiply(challenge, point)))


# --- The encodings -----------------------------------------------------------------------------------------------------------

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def text(value):
    data = value.encode("utf-8")
    return struct.pack(">I", len(data)) + data


def micros(value):
    """Microseconds since 1970 of an RFC 3339 time in UTC, with zero to six digits of a fraction."""
    if not value.endswith("Z"):
        raise ValueError("a time must end with Z")
    whole, _, fraction = value[:-1].partition(".")
    seconds = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc) - EPOCH
    if len(fraction) > 6 or (fraction and not fraction.isdigit()):
        raise ValueError("a time has at most six digits of a fraction")
    return seconds // timedelta(microseconds=1) + int((fraction or "0").ljust(6, "0"))


def canonical(event):
    return b"".join([
        b"\x01",
        struct.pack(">Q", event["position"]),
        uuid.UUID(event["tenant_id"]).bytes,
        text(event["aggregate_type"]),
        uuid.UUID(event["aggregate_id"]).bytes,
        struct.pack(">Q", event["sequence"]),
        uuid.UUID(event["event_id"]).bytes,
        text(event["event_type"]),
        struct.pack(">H", event["event_version"]),
        text(event["payload"]),
        text(event["metadata"]),
        struct.pack(">q", micros(event["recorded_at"])),
    ])


def head_bytes(head):
    return b"".join([
        b"prospectus tree head\x01",
        uuid.UUID(head["log_id"]).bytes,
        text(head["key_id"]),
        text(head["epoch"]),
        struct.pack(">Q", head["tree_size"]),
        bytes.fromhex(head["root_hash"]),
        struct.pack(">q", micros(head["time"])),
    ])


def leaf_hash(data):
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- The tree ----------------------------------------------------------------------------------------------------------------

class Tree:
    """RFC 6962's tree, growing to the right: the roots of the complete subtrees, the largest first."""

    def __init__(self):
        self.size, self.peaks = 0, []

    def append(self, leaf):
        rest, node = self.size, leaf
        while rest & 1:
            node = node_hash(self.peaks.pop(), node)
            rest >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self):
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        node = self.peaks[-1]
        for left in reversed(self.peaks[:-1]):
            node = node_hash(left, node)
        return node


def includes(leaf, index, size, path, root):
    """RFC 9162, section 2.1.3.2."""
    if index >= size:
        return False
    place, last, node = index, size - 1, leaf
    for other in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            node = node_hash(other, node)
            while place & 1 == 0 and place != 0:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, other)
        place, last = place >> 1, last >> 1
    return last == 0 and node == root


def grew(first, second, path, first_root, second_root):
    """RFC 9162, section 2.1.4.2: the tree of `second` leaves begins with the one of `first`."""
    if first == second:
        return not path and first_root == second_root
    if not 0 < first < second or not path:
        return False
    if first & (first - 1) == 0:
        path = [first_root] + path
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for other in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = node_hash(other, old), node_hash(other, new)
            while place & 1 == 0 and place != 0:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, other)
        place, last = place >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


# --- What is asked -----------------------------------------------------------------------------------------------------------

def key_id(public):
    return hashlib.sha256(public).hexdigest()[:16]


def read_heads(path):
    """The heads in a file, and the public keys that stand beside them."""
    heads, keys = [], []
    decoder, content, at = json.JSONDecoder(), open(path, encoding="utf-8").read(), 0
    while content[at:].strip():
        at += len(content[at:]) - len(content[at:].lstrip())
        try:
            value, at = decoder.raw_decode(content, at)
        except ValueError:
            if not heads or "\n" in content[at:]:
                raise
            print("%s: its last line was not written to its end, and is passed over" % path, file=sys.stderr)
            break
        heads += value["items"] if "items" in value else [value.get("head") or value]
        keys += [base64.b64decode(key["public_key"]) for key in value.get("keys", [])]
    return heads, keys


def check_signature(head, keys):
    for public in keys:
        if key_id(public) == head["key_id"]:
            signature = base64.b64decode(head["signature"])
            return None if ed25519_verifies(public, head_bytes(head), signature) else "its signature is wrong"
    return "the key %s that signed it is not known" % head["key_id"]


def check_proof(arguments):
    proof = json.load(open(arguments.proof, encoding="utf-8"))
    head, event = proof["head"], proof["event"]
    pinned = [base64.b64decode(key) for key in arguments.key]
    heads, keys = read_heads(arguments.head) if arguments.head else ([head], [])
    keys = pinned or keys or [base64.b64decode(proof["public_key"])]
    kept = [kept for kept in heads if kept["tree_size"] == head["tree_size"]]
    if not kept:
        return ["no head of the proof's size (%d) was kept" % head["tree_size"]]
    said = ("log_id", "root_hash", "epoch")
    kept.sort(key=lambda one: all(one[name] == head[name] for name in said))
    wrong = []
    for name in said:
        if kept[-1][name] != head[name]:
            wrong.append("the proof's head is not the kept one: another %s" % name)
    for one in (head, kept[-1]):
        problem = check_signature(one, keys)
        if problem:
            wrong.append("the head over %d events: %s" % (one["tree_size"], problem))
    leaf = leaf_hash(canonical(event))
    if proof["version"] != 1 or leaf.hex() != proof["leaf_hash"]:
        wrong.append("the event is not the one of the proof")
    path = [bytes.fromhex(node) for node in proof["path"]]
    if not includes(leaf, event["position"] - 1, head["tree_size"], path, bytes.fromhex(head["root_hash"])):
        wrong.append("the path does not lead from the event to the root")
    return wrong


def check_consistency(arguments):
    answer = json.load(open(arguments.answer, encoding="utf-8"))
    heads, keys = read_heads(arguments.head)
    keys = [base64.b64decode(key) for key in arguments.key] or keys
    roots, wrong = [], []
    for name in ("from", "to"):
        # What was kept counts; of the other end the answer has the head, which must be signed.
        kept = [head for head in heads if head["tree_size"] == answer[name]] or [answer["head_" + name]]
        if kept[-1] is None:
            return ["no head over %d events was kept" % answer[name]]
        problem = check_signature(kept[-1], keys)
        if problem:
            wrong.append("the head over %d events: %s" % (answer[name], problem))
        roots.append(bytes.fromhex(kept[-1]["root_hash"]))
    path = [bytes.fromhex(node) for node in answer["path"]]
    if answer["version"] != 1 or not grew(answer["from"], answer["to"], path, roots[0], roots[1]):
        wrong.append("the tree of %d events does not begin with the one of %d" % (answer["to"], answer["from"]))
    return wrong


def check_log(arguments):
    heads, keys = read_heads(arguments.head)
    keys = [base64.b64decode(key) for key in arguments.key] or keys
    wrong = []
    if not heads:
        return ["there is no head in %s" % arguments.head]
    if not keys:
        return ["no public key is known: give --key, or a page of GET /v1/log/heads"]
    wanted = {}
    for head in heads:
        problem = check_signature(head, keys)
        if problem:
            wrong.append("the head over %d events: %s" % (head["tree_size"], problem))
        wanted.setdefault(head["tree_size"], set()).add(head["root_hash"])
    tree = Tree()
    for line in open(arguments.events, encoding="utf-8"):
        event = json.loads(line)
        if event["position"] != tree.size + 1:
            return wrong + ["position %d stands where %d should" % (event["position"], tree.size + 1)]
        tree.append(leaf_hash(canonical(event)))
        for root in wanted.pop(tree.size, ()):
            if root != tree.root().hex():
                wrong.append("the log leads to another root than the head over %d events" % tree.size)
    for size in sorted(wanted):
        wrong.append("the log ends at %d, before the head over %d events" % (tree.size, size))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    proof, consistency, log = (commands.add_parser(name) for name in ("proof", "consistency", "log"))
    proof.add_argument("proof")
    consistency.add_argument("answer")
    log.add_argument("events")
    proof.add_argument("--head")
    consistency.add_argument("--head", required=True)
    log.add_argument("--head", required=True)
    for command in (proof, consistency, log):
        command.add_argument("--key", action="append", default=[])
    arguments = parser.parse_args()
    try:
        checks = {"proof": check_proof, "consistency": check_consistency, "log": check_log}
        wrong = checks[arguments.command](arguments)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        wrong = ["not of its form: %r" % error]
    for problem in wrong:
        print("NOT PROVEN: %s" % problem)
    if not wrong:
        print("proven")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

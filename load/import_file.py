"""A file of credentials with seeded faults, and what an import must say about it."""

import base64
import hashlib
import json
import random
import re

# No letter of these is a hexadecimal digit: a long run of them is a token, whatever lies around it.
LETTERS = "ghjkmnpqrstvwxyz"
# The secret part of a token: 80 bits.
SECRET_LEN = 20
RUNS = re.compile(rb"[%s]{%d,}" % (LETTERS.encode(), SECRET_LEN))
DIGESTS = re.compile(rb"[0-9a-f]{64,}")

# Every code that a line of NDJSON can have.
CODES = [
    "bad_json", "line_too_long", "missing_field", "bad_type", "unknown_app", "unknown_user",
    "unknown_plan", "unknown_product", "product_not_assignable", "auth_method_unsupported",
    "key_too_short", "key_too_long", "key_bad_chars", "key_in_use", "duplicate_in_file",
    "alias_in_use", "several_plans", "hash_not_indexable", "expires_in_past", "token_in_text",
]


def token_of(rng):
    return "LEG-" + "".join(rng.choices(LETTERS, k=SECRET_LEN))


class ImportFile:
    """`lines` lines, every hundredth wrong, tokens in the clear and as SHA-256 mixed.

    `place` names what lines refer to: numbers of apps, plan, product and of a product that is
    documentation only, the names of plan and product, what apps that are made by the way are called,
    and tokens that are in use.
    """

    def __init__(self, path, seed, lines, place):
        self.path, self.lines, self.place = path, lines, place
        self.rng = random.Random(seed)
        self.used, self.unused = None, list(place["used"])
        # line number -> (code, line that was first with the token)
        self.faults, self.warned = {}, 0
        self.good, self.wrong = [], []
        first = min(100, lines // 10)
        spoilt = sorted(self.rng.sample(range(first + 1, lines + 1), lines // 100))
        codes = {number: CODES[at % len(CODES)] for at, number in enumerate(spoilt)}
        # A line of each app and a way to write it, before the first fault refers to them.
        self.earlier = {}
        with open(path, "w") as f:
            for number in range(1, lines + 1):
                f.write(self.line(number, codes.get(number)) + "\n")

    def line(self, number, code):
        place, rng, token = self.place, self.rng, token_of(self.rng)
        app = rng.choice(place["apps"])
        line = {"Line": f"old-{number}", "AppID": app, "Alias": f"key {number}",
                "PlanID": rng.choice([place["plan"], place["plan_name"]]),
                "ProductIDs": [rng.choice([place["product"], place["product_name"]])]}
        if number % 50 == 7:
            del line["AppID"]
            n = rng.randrange(40)
            line |= {"App": f"{place['made']} {n}",
                     "User": {"Email": f"owner-{n}@acme.test", "OrganisationID": 1}}
        if rng.random() < 0.3:
            line["MetaData"] = {"tier": rng.choice(["gold", "silver"]), "region": "eu"}
        if rng.random() < 0.2:
            line["Expires"] = "2099-01-01T00:00:00Z"
        if rng.random() < 0.1:
            line["QuotaUsed"] = rng.randrange(1, 1000)
        if rng.random() < 0.05:
            line["Active"] = "false"
        digest = hashlib.sha256(token.encode())
        form = rng.randrange(4)
        if form < 2:
            line["KeyID"] = token
        elif form == 2:
            line["KeyHash"] = digest.hexdigest()
        else:
            value = base64.b64encode(digest.digest()).decode()
            line["KeyHash"] = {"Algorithm": "sha256", "Encoding": "base64", "Value": value}
        if code:
            self.wrong.append(token)
            self.faults[number] = (code, None)
            return self.spoil(number, line, code, token)
        self.good.append((number, token, line.get("Active") != "false"))
        if "AppID" in line:
            self.earlier[app] = (number, token)
        if number % 1000 == 3:
            line["Nonsense"] = "means nothing"
            self.warned += 1
        return json.dumps(line)

    def spoil(self, number, line, code, token):
        if code == "key_in_use":
            # A second time it would be twice in the file.
            self.used = self.unused.pop()
        app, past = self.rng.choice(list(self.earlier.items()))
        by_number = {"AppID": app, "App": None, "User": None}
        key = {"KeyHash": None, "KeyID": token}
        if code == "bad_json":
            return json.dumps(line | key)[:-2]
        if code == "duplicate_in_file":
            self.faults[number] = (code, past[0])
        line |= {
            "line_too_long": {"MetaData": {"long": "x" * 70_000}},
            "missing_field": {"Alias": None},
            "bad_type": {"Expires": "soon"},
            "unknown_app": by_number | {"AppID": 999_999},
            "unknown_user": {"AppID": None, "App": "an app", "User": "nobody@acme.test"},
            "unknown_plan": {"PlanID": "nobodys plan"},
            "unknown_product": {"ProductIDs": [self.place["product"], 999_999]},
            "product_not_assignable": {"ProductIDs": [self.place["documentation"]]},
            "auth_method_unsupported": {"AuthenticationMethod": "oAuth2.0"},
            "key_too_short": key | {"KeyID": "ab"},
            "key_too_long": key | {"KeyID": token * 200},
            "key_bad_chars": key | {"KeyID": token.replace("-", " ")},
            "key_in_use": key | {"KeyID": self.used},
            "duplicate_in_file": key | {"KeyID": past[1]},
            "alias_in_use": by_number | {"Alias": f"key {past[0]}"},
            "several_plans": {"PlanID": None, "UsagePlanIds": ["one", "two"]},
            "hash_not_indexable": {"KeyID": None, "KeyHash": "$2b$12$" + "e" * 53},
            "expires_in_past": {"Expires": "2001-01-01T00:00:00Z"},
            "token_in_text": key | {"Description": f"was {token} before"},
        }[code]
        return json.dumps(line)

    def told(self):
        """What the errors of a report must be: line, code, line that was first."""
        return [(line, *fault) for line, fault in sorted(self.faults.items())]


class Finder:
    """Finds tokens of files, and their unsalted hashes, in bytes."""

    def __init__(self, files):
        tokens = [token for file in files for _, token, _ in file.good]
        tokens += [token for file in files for token in file.wrong]
        self.secrets = {token[4:].encode() for token in tokens}
        digests = [hashlib.sha256(token.encode()) for token in tokens]
        self.digests = {digest.hexdigest().encode() for digest in digests}
        # Of raw ones a sample: each costs a walk through everything.
        self.raw = [digest.digest() for digest in digests[:: max(1, len(digests) // 20)]]

    def found(self, data):
        """How many are in it."""
        runs = [(match.group(), SECRET_LEN, self.secrets) for match in RUNS.finditer(data)]
        runs += [(match.group(), 64, self.digests) for match in DIGESTS.finditer(data)]
        count = sum(run[at:at + size] in known for run, size, known in runs
                    for at in range(len(run) - size + 1))
        return count + sum(raw in data for raw in self.raw)

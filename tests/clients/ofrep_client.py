"""Runs OpenFeature's Python SDK and its OFREP provider, unmodified: ofrep_client.py URL TOKEN FLAGS_JSON CONTEXT_JSON

FLAGS_JSON maps a flag's key to the type it is read as. Prints lines of JSON: "fetch" for each request it has made, and
"details" of all flags, first at once and then again for each line on standard input, until that ends. Such a line is {}
or {"context":{…}}, which is the context from then on. Unlike the other clients it sends its token as `X-API-Key`.
"""

import dataclasses
import json
import sys
from urllib.parse import urlsplit

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

TYPES = {
    "boolean": ("boolean", False),
    "string": ("string", "default"),
    "integer": ("integer", -1),
    "float": ("float", -1.0),
    "object": ("object", {"default": True}),
    "missing": ("boolean", False),
}

url, token, flags_json, context_json = sys.argv[1:]
flags = json.loads(flags_json)


def show(line):
    print(json.dumps(line), flush=True)


def read_context(context):
    attributes = dict(context)
    return EvaluationContext(attributes.pop("targetingKey", None), attributes)


def tell_fetch(response, *_args, **_kwargs):
    asked = urlsplit(response.request.url)
    show(
        {
            "event": "fetch",
            "method": response.request.method,
            "path": asked.path,
            "status": response.status_code,
            "body": json.loads(response.request.body),
        }
    )


def details(client, context):
    found = {}
    for key, type_name in flags.items():
        name, default = TYPES[type_name]
        found[key] = dataclasses.asdict(getattr(client, f"get_{name}_details")(key, default, context))
    show({"event": "details", "flags": found})


provider = OFREPProvider(url, headers_factory=(lambda: {"X-API-Key": token}) if token else None)
provider.session.hooks["response"].append(tell_fetch)
api.set_provider(provider)
client = api.get_client()
context = read_context(json.loads(context_json))
details(client, context)
for line in sys.stdin:
    command = json.loads(line)
    if "context" in command:
        context = read_context(command["context"])
    details(client, context)

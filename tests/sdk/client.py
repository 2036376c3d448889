"""Runs GrowthBook's own Python SDK, unmodified: client.py HOST CLIENT_KEY DECRYPTION_KEY FEATURE

Prints a line of JSON with the feature's value when it is loaded and whenever it changes, until standard input ends. Loads
once more than it has to, so that the second request comes with a validator.
"""

import json
import sys
import threading
import time

from growthbook import GrowthBook

host, client_key, decryption_key, feature = sys.argv[1:]
growthbook = GrowthBook(
    api_host=host,
    client_key=client_key,
    decryption_key=decryption_key,
    attributes={"id": "user-1"},
    streaming=True,
)
growthbook.load_features()
growthbook.load_features(force_refresh=True)


def watch():
    last = None
    while True:
        line = json.dumps({"value": growthbook.get_feature_value(feature, None)}, separators=(",", ":"))
        if line != last:
            last = line
            print(line, flush=True)
        time.sleep(0.02)


threading.Thread(target=watch, daemon=True).start()
sys.stdin.read()

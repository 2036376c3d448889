"""Evaluates cases with GrowthBook's SDK for Python: one JSON line in per payload, one out per user."""

import copy
import json
import logging
import sys

from growthbook import Experiment, GrowthBook
from growthbook.growthbook import InMemoryStickyBucketService

logging.disable(logging.CRITICAL)


def evaluate(test, user):
    payload = test["payload"]
    service = None
    if "sticky" in user:
        service = InMemoryStickyBucketService()
        for document in user["sticky"]:
            service.save_assignments(document)
    gb = GrowthBook(
        attributes=user["attributes"],
        url=user.get("url") or "",
        features=payload["features"],
        saved_groups=payload["savedGroups"],
        contextual_bandits=payload["contextualBandits"],
        forced_variations=user.get("forcedVariations") or {},
        sticky_bucket_service=service,
    )
    stored = {}
    if service:
        gb.refresh_sticky_buckets(True)
        for document in user["sticky"]:
            key = document["attributeName"] + "||" + document["attributeValue"]
            stored[key] = document

    def begin():
        # Evaluation mixes one unit's document into another's: each begins with what was stored.
        if service:
            gb._user_ctx.sticky_bucket_assignment_docs = copy.deepcopy(stored)
        return gb

    answer = {"features": [begin().eval_feature(key).to_dict() for key in test["features"]]}
    answer["inline"] = [begin().run(Experiment(**experiment)).to_dict() for experiment in test["inline"]]
    return answer


for line in sys.stdin:
    test = json.loads(line)
    for user in test["users"]:
        try:
            answer = evaluate(test, user)
        except Exception as error:
            answer = {"throws": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()

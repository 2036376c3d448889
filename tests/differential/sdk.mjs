// Evaluates cases with GrowthBook's SDK for JavaScript: one JSON line in per payload, one out per user.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.env.STITCHD_TEST_NODE, "index.js"));
const { GrowthBook } = require("@growthbook/growthbook");
console.error = console.log = () => {};

function evaluate({ payload, inline, features }, user) {
  const docs = {};
  for (const doc of user.sticky ?? []) docs[`${doc.attributeName}||${doc.attributeValue}`] = doc;
  const options = {
    ...payload,
    attributes: user.attributes,
    disableExperimentsOnLoad: true,
    url: user.url,
    forcedVariations: user.forcedVariations,
    forcedFeatureValues: new Map(user.forcedFeatures ?? []),
  };
  if (user.sticky) {
    options.stickyBucketAssignmentDocs = docs;
    options.stickyBucketService = {
      getAllAssignments: async () => docs,
      saveAssignments: async () => {},
    };
  }
  const gb = new GrowthBook(options);
  const answer = { features: features.map((key) => gb.evalFeature(key)) };
  answer.inline = inline.map((experiment) => gb.run(experiment));
  if (user.sticky) answer.sticky = gb.getStickyBucketAssignmentDocs();
  return answer;
}

for await (const line of createInterface({ input: process.stdin })) {
  const test = JSON.parse(line);
  let out = "";
  for (const user of test.users) {
    try {
      out += JSON.stringify(evaluate(test, structuredClone(user))) + "\n";
    } catch (error) {
      out += JSON.stringify({ throws: String(error) }) + "\n";
    }
  }
  if (!process.stdout.write(out)) await new Promise((resolve) => process.stdout.once("drain", resolve));
}

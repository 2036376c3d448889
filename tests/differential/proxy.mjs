// Evaluates cases as GrowthBook Proxy does: one JSON line in per payload, one out per user.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.env.STITCHD_TEST_NODE, "index.js"));
const { evaluateFeatures } = require("@growthbook/proxy-eval");
console.error = console.log = () => {};

function stickyBuckets(documents) {
  const stored = {};
  for (const doc of documents) stored[`${doc.attributeName}||${doc.attributeValue}`] = doc;
  return {
    getAllAssignments: async (attributes) => {
      const found = {};
      for (const [name, value] of Object.entries(attributes)) {
        const doc = stored[`${name}||${value}`];
        if (doc) found[`${name}||${value}`] = structuredClone(doc);
      }
      return found;
    },
    saveAssignments: async () => {},
    onEvaluate: async () => {},
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const test = JSON.parse(line);
  let out = "";
  for (const user of test.users) {
    try {
      const answer = await evaluateFeatures({
        payload: test.payload,
        attributes: user.attributes,
        forcedVariations: user.forcedVariations ?? {},
        forcedFeatures: new Map(user.forcedFeatures ?? []),
        url: user.url,
        stickyBucketService: user.sticky ? stickyBuckets(user.sticky) : null,
      });
      out += JSON.stringify(answer) + "\n";
    } catch (error) {
      out += JSON.stringify({ throws: String(error) }) + "\n";
    }
  }
  if (!process.stdout.write(out)) await new Promise((resolve) => process.stdout.once("drain", resolve));
}

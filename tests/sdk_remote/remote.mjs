// GrowthBook's SDK for JavaScript with `remoteEval`: says what it sees of each user in turn, as one line of JSON.
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.STITCHD_TEST_NODE, "index.js"));
const { GrowthBook, StickyBucketService } = require("@growthbook/growthbook");
const [apiHost, clientKey, users, ownBuckets] = process.argv.slice(2);

class InMemory extends StickyBucketService {
  docs = {};
  async getAssignments(name, value) {
    return this.docs[this.getKey(name, value)] ?? null;
  }
  async saveAssignments(doc) {
    this.docs[this.getKey(doc.attributeName, doc.attributeValue)] = doc;
  }
}

const tracked = [];
const stickyBucketService = ownBuckets === "own" ? new InMemory() : undefined;
const [first, ...others] = JSON.parse(users);
const gb = new GrowthBook({
  apiHost,
  clientKey,
  remoteEval: true,
  attributes: first,
  stickyBucketService,
  trackingCallback: (experiment, result) =>
    tracked.push({ key: experiment.key, variation: result.key, unit: result.hashValue, sticky: result.stickyBucketUsed }),
});
const init = await gb.init({ timeout: 20000, skipCache: true });
const see = () => ({ checkout: gb.getFeatureValue("checkout", null), flag: gb.isOn("flag") });
const seen = [see()];
for (const user of others) {
  await gb.setAttributes(user);
  seen.push(see());
}
const payload = JSON.stringify(gb.getPayload());
console.log(JSON.stringify({ success: init.success, seen, tracked, leaks: payload.includes("country") }));
gb.destroy();

// What the OpenFeature programs of this folder share.
"use strict";

/** The getter that reads a flag of each type, and the default value it is given. */
const TYPES = { boolean: "Boolean", string: "String", number: "Number", object: "Object", missing: "Boolean" };
const DEFAULTS = { boolean: false, string: "default", number: -1, object: { default: true }, missing: false };

/** How the web provider is to learn of changes: by polling only, by the stream only, or by polling without a stream. */
const MODES = {
  poll: { pollInterval: 1000, changeDetection: "polling" },
  stream: { pollInterval: 0 },
  both: { pollInterval: 1000 },
};

module.exports = { DEFAULTS, MODES, TYPES };

// What the programs of this folder share: lines of JSON out and in.
"use strict";

const readline = require("node:readline");

/** Prints one line, at once also where standard output is a pipe. */
function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

function fail(error) {
  process.stderr.write(`${(error && error.stack) || error}\n`, () => process.exit(1));
}

process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

/** Hands over each line of standard input, one after another, and ends the program where it ends. */
function commands(act, end = () => {}) {
  let acted = Promise.resolve();
  readline
    .createInterface({ input: process.stdin })
    .on("line", (line) => {
      acted = acted.then(() => act(JSON.parse(line))).catch(fail);
    })
    .on("close", async () => {
      await acted;
      await end();
      process.exit(0);
    });
}

module.exports = { commands, fail, print };

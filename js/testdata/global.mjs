// Runs the script beside it as a page does, without modules. Usage: node global.mjs URL

import { readFileSync } from "node:fs";
import vm from "node:vm";

const script = new URL("global.js", import.meta.url);
new vm.Script(readFileSync(script, "utf8"), {
  filename: script.href, importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
}).runInThisContext();
console.log(typeof GpollSource, typeof GpollError);
const feed = new GpollSource(process.argv[2], { transports: ["sse"] });
feed.onopen = async e => {
  console.log(e.transport);
  console.log(await feed.request("what?"));
  feed.close();
};

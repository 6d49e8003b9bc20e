// Drives the page of gpoll in Chromium, against a server that it starts, kills and starts again.
//
//   node browser.mjs <gpoll binary> <chromium binary> <address> <README's program> <its address>
//
// It prints a line for each step. The first failure ends it with code 1 and the state of the pages.

import { access } from './access.mjs';
import { end } from './harness.mjs';
import { parts } from './parts.mjs';
import { readmePage } from './readme.mjs';
import { session } from './session.mjs';

let failed = false;
try {
	await Promise.all([parts().then(access), session(), readmePage()]);
} catch {
	failed = true;
} finally {
	await end();
}
process.exit(failed ? 1 : 0);

#!/bin/sh
# Installs what the tests of the demonstration page need: Node.js, Chromium and the packages of the test. What cannot be installed is
# said; the tests then skip with a sentence. With GPOLL_REQUIRE=1 it is a failure here.
set -eu
cd "$(dirname "$0")/.."
browser=cmd/gpoll/testdata/browser

lacks() {
	echo "setup: $1"
	if [ "${GPOLL_REQUIRE:-}" = 1 ]; then exit 1; fi
	exit 0
}

have() {
	for name in "$@"; do
		if command -v "$name" >/dev/null 2>&1; then return 0; fi
	done
	return 1
}

# install PACKAGE...: with apt-get as root; nothing else is tried.
install() {
	if [ "$(id -u)" != 0 ] || ! have apt-get; then return 1; fi
	echo "setup: installing $*"
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >/dev/null 2>&1
}

if [ ! -f "$browser/package.json" ]; then exit 0; fi
have node || install nodejs npm || lacks "no Node.js: the browser tests are skipped. Install nodejs and npm."
have npm || install npm || lacks "no npm: the browser tests are skipped. Install npm."
have chromium chromium-browser google-chrome || install chromium ||
	lacks "no Chromium: the browser tests are skipped. Install chromium."
if [ -f "$browser/package-lock.json" ] && [ ! -d "$browser/node_modules" ]; then
	(cd "$browser" && npm ci --no-audit --no-fund >/dev/null) ||
		lacks "npm ci failed in $browser: the browser tests are skipped."
fi

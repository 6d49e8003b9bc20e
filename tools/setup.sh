#!/bin/sh
# Installs what the tests need beside Go: Node.js, Chromium, Firefox, nginx with Nchan, four more proxies and npm packages. What cannot be
# installed is said; the tests then skip with a sentence. With GPOLL_REQUIRE=1 it is a failure here.
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

# packages FOLDER: what its lock file names, once.
packages() {
	if [ ! -d "$1/node_modules" ]; then
		(cd "$1" && npm ci --no-audit --no-fund >/dev/null) || lacks "npm ci failed in $1: its tests are skipped."
	fi
}

have node || install nodejs npm || lacks "no Node.js: the tests with a browser and with other servers are skipped. Install nodejs and npm."
have npm || install npm || lacks "no npm: the tests with a browser and with other servers are skipped. Install npm."
packages peers/node
packages tests/stacks/testdata/node
packages js/testdata/node
have nginx && [ -f /usr/lib/nginx/modules/ngx_nchan_module.so ] || install nginx-core libnginx-mod-nchan ||
	lacks "no nginx with Nchan: it is left out of the comparison. Install nginx-core and libnginx-mod-nchan."
have chromium chromium-browser google-chrome || install chromium ||
	lacks "no Chromium: the browser tests are skipped. Install chromium."
packages "$browser"
have firefox-esr firefox || install firefox-esr ||
	lacks "no Firefox: the browser client is not tried in it. Install firefox-esr."
PATH=$PATH:/usr/sbin
have haproxy && have caddy && have apache2 && have varnishd || install haproxy caddy apache2-bin varnish ||
	lacks "no HAProxy, Caddy, Apache or Varnish: the configurations of docs/proxies.md are not all tried. Install haproxy, caddy, apache2-bin and varnish."
